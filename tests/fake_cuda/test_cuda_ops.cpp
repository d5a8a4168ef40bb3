// Every op that is no convolution, on CUDA and on the CPU: outputs, losses, gradients, weights and running
// statistics over two steps of a small network, which is made so that pointers of the op's run are missing.
#include <map>

#include "cuda_run.hpp"
#ifdef NNLITE_FAKE_CUDA
#include "fake_cuda.hpp"
#endif

namespace {

constexpr double tolerance = 1e-4;             // of the largest value of what is compared

// x -> what build makes of it, or of h = Linear(x) without a bias, -> y. Of C channels.
struct Trial {
  const char* name;
  Dims  (*x)(int C);
  AnyOp loss;
  Tensor (*build)(Model& m, Tensor x, int C);
  Trainable   trainable = Trainable::all;
  const char* trained = nullptr;               // with Trainable::named
};

Dims row(int C) { return {C}; }
Dims steps(int C) { return {7, C}; }
Dims image(int C) { return {5, 7, C}; }
Dims large(int C) { return {13, 11, C}; }     // sums of five of them are cut
Dims larger(int C) { return {18, 17, C}; }
Dims huge(int C) { return {77, 74, C}; }      // three into more parts than a block has threads to merge them

Tensor front(Model& m, Tensor x, int C) { return m.add(Linear{0, C, false}, x); }
Tensor back(Model& m, Tensor y) { return m.chain(y, Flatten{}, Linear{0, 3}); }
// The op reads what a second op reads, too, which comes first in the pass backward, or the op does.
template <class A>
Tensor shared(Model& m, Tensor x, int C, const A& a) {
  const Tensor h = front(m, x, C), y = m.add(a, h), z = m.add(Sigmoid{}, h), w = m.add(a, h);
  return m.add(Add{}, back(m, y), back(m, z), back(m, w));
}
// On the input itself, where no gradient is wanted, and on h.
template <class A>
Tensor plainly(Model& m, Tensor x, int C, const A& a) {
  return m.add(Add{}, back(m, m.add(a, x)), back(m, m.add(a, front(m, x, C))));
}
template <class A>
Tensor frozen(Model& m, Tensor x, int C, const A& a) {
  const Tensor y = m.add(a, front(m, x, C));
  m.freeze(y);
  return back(m, y);
}

BatchNorm2d norm(bool affine, bool tracked, float momentum = 0.1f) {
  return {0, 1e-5f, momentum, affine, tracked};
}
BatchNorm1d norm1(bool affine, bool tracked) { return {0, 1e-3f, 0.3f, affine, tracked}; }

// What losses in the graph need besides.
Tensor outputs(Model& m, Tensor y, Tensor loss, Tensor other) {
  m.output("y", y);
  m.output("loss", loss);
  if (other.id != loss.id) m.output("other", other);
  return y;
}

#define BUILD(...) [](Model& m, Tensor x, int C) -> Tensor { (void)C; return __VA_ARGS__; }

const Trial norms[] = {
    {"of the input", image, MSELoss{}, BUILD(back(m, m.add(norm(true, true), x)))},
    {"shared", image, MSELoss{}, BUILD(shared(m, x, C, norm(true, true, 0.4f)))},
    {"of many pixels", large, MSELoss{}, BUILD(plainly(m, x, C, norm(true, true)))},
    {"not affine", image, MSELoss{}, BUILD(plainly(m, x, C, norm(false, true)))},
    {"not affine, shared", large, MSELoss{}, BUILD(shared(m, x, C, norm(false, true)))},
    {"not tracked", image, MSELoss{}, BUILD(plainly(m, x, C, norm(true, false)))},
    {"neither", large, MSELoss{}, BUILD(shared(m, x, C, norm(false, false)))},
    {"frozen", image, MSELoss{}, BUILD(frozen(m, x, C, norm(true, true)))},
    {"frozen, not affine", image, MSELoss{}, BUILD(frozen(m, x, C, norm(false, true)))},
    {"frozen, not tracked", image, MSELoss{}, BUILD(frozen(m, x, C, norm(true, false)))},
    {"biases alone, of the input", large, MSELoss{}, BUILD(back(m, m.add("n", norm(true, true), x))),
     Trainable::bias},
    {"biases alone", image, MSELoss{}, BUILD(plainly(m, x, C, norm(true, true))), Trainable::bias},
    {"weight alone", image, MSELoss{}, BUILD(back(m, m.add("n", norm(true, true), x))), Trainable::named,
     "n.weight"},
    {"bias alone", image, MSELoss{}, BUILD(back(m, m.add("n", norm(true, false), x))), Trainable::named,
     "n.bias"},
    {"head", image, MSELoss{}, BUILD(back(m, m.add(norm(true, true), front(m, x, C)))), Trainable::head},
    {"1d of rows", row, MSELoss{}, BUILD(shared(m, x, C, norm1(true, true)))},
    {"1d of rows, neither", row, MSELoss{}, BUILD(plainly(m, x, C, norm1(false, false)))},
    {"1d of steps", steps, MSELoss{}, BUILD(shared(m, x, C, norm1(true, true)))},
    {"1d of steps, frozen", steps, MSELoss{}, BUILD(frozen(m, x, C, norm1(true, true)))},
};

const Trial sums[] = {
    {"of the input", huge, MSELoss{}, BUILD(back(m, m.add(norm(true, true), x)))},
    {"shared", huge, MSELoss{}, BUILD(shared(m, x, C, norm(true, true)))},
    {"of a Linear", huge, MSELoss{}, BUILD(back(m, m.chain(x, Linear{0, C}, Sigmoid{})))},
    {"of a convolution", huge, MSELoss{}, BUILD(back(m, m.add(Conv2d{0, C, 1}, x)))},
};

// What the planner makes one step of, here or where the row before or behind it can do it, too.
const Trial joined[] = {
    {"norm, ReLU", large, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), norm(true, true), ReLU{})))},
    {"norm of the input, ReLU", image, MSELoss{}, BUILD(back(m, m.chain(x, norm(true, true), ReLU{})))},
    {"norm, ReLU, not affine", image, MSELoss{},
     BUILD(back(m, m.chain(front(m, x, C), norm(false, true), ReLU{})))},
    {"norm1d, ReLU", steps, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), norm1(true, true), ReLU{})))},
    {"norm, ReLU of two", image, MSELoss{}, [](Model& m, Tensor x, int C) {
       const Tensor y = m.chain(front(m, x, C), norm(true, true), ReLU{});
       return back(m, m.add(Concat{}, m.chain(y, MaxPool2d{3, 1, 1}), y));
     }},
    {"frozen norm, ReLU", image, MSELoss{}, [](Model& m, Tensor x, int C) {
       const Tensor h = front(m, x, C), n = m.add(norm(true, true), h);
       m.freeze(n);
       return back(m, m.add(ReLU{}, n));
     }},
    {"norm, ReLU, biases alone", large, MSELoss{}, BUILD(back(m, m.chain(x, norm(true, true), ReLU{}))),
     Trainable::bias},
    {"norm, ReLU, twice", image, MSELoss{},
     BUILD(back(m, m.chain(front(m, x, C), norm(true, true), ReLU{}, norm(true, true), ReLU{})))},
    {"ReLU, norm", image, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), ReLU{}, norm(true, true))))},
    {"sum, ReLU", image, MSELoss{},
     BUILD(back(m, m.add(ReLU{}, m.add(Add{}, front(m, x, C), x, front(m, x, C)))))},
    {"sum of one twice, ReLU", image, MSELoss{}, [](Model& m, Tensor x, int C) {
       const Tensor h = front(m, x, C);
       return back(m, m.add(ReLU{}, m.add(Add{}, h, front(m, x, C), h)));
     }},
    {"product, ReLU", image, MSELoss{},
     BUILD(back(m, m.add(ReLU{}, m.add(Mul{}, front(m, x, C), front(m, x, C)))))},
    {"ReLU, maximum", image, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), ReLU{}, MaxPool2d{2})))},
    {"ReLU, maximum that overlaps", image, MSELoss{},
     BUILD(back(m, m.chain(front(m, x, C), ReLU{}, MaxPool2d{3, 2, 1})))},
    {"ReLU, mean", image, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), ReLU{}, AvgPool2d{3, 2, 1})))},
    {"ReLU, adaptive mean", image, MSELoss{},
     BUILD(back(m, m.chain(front(m, x, C), ReLU{}, AdaptiveAvgPool2d{2})))},
    {"ReLU, upsample", image, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), ReLU{}, Upsample{})))},
    {"ReLU, dropout", image, MSELoss{}, BUILD(back(m, m.chain(front(m, x, C), ReLU{}, Dropout{0.3f})))},
};

const Trial pools[] = {
    {"max 2", image, MSELoss{}, BUILD(plainly(m, x, C, MaxPool2d{2}))},
    {"max 3 by 2, padding, shared", image, MSELoss{}, BUILD(shared(m, x, C, MaxPool2d{3, 2, 1}))},
    {"max ceil_mode", image, MSELoss{}, BUILD(shared(m, x, C, MaxPool2d{{2, 3}, 2, 0, 1, true}))},
    {"max dilation", large, MSELoss{},
     BUILD(shared(m, x, C, MaxPool2d{{3, 2}, {1, 3}, {2, 1}, {2, 3}, true}))},
    {"max of over 256", larger, MSELoss{}, BUILD(shared(m, x, C, MaxPool2d{{17, 16}, {2, 1}, {3, 1}}))},
    {"max apart", image, MSELoss{}, BUILD(shared(m, x, C, MaxPool2d{1, {2, 3}}))},
    {"average 2", image, MSELoss{}, BUILD(plainly(m, x, C, AvgPool2d{2}))},
    {"average 3 by 2, padding", image, MSELoss{}, BUILD(shared(m, x, C, AvgPool2d{3, 2, 1}))},
    {"average of the inside", image, MSELoss{},
     BUILD(shared(m, x, C, AvgPool2d{{3, 4}, {1, 3}, {1, 2}, false, false}))},
    {"average ceil_mode", image, MSELoss{},
     BUILD(shared(m, x, C, AvgPool2d{{2, 4}, {2, 3}, {1, 0}, true, true}))},
    {"average ceil_mode, inside", image, MSELoss{},
     BUILD(shared(m, x, C, AvgPool2d{{2, 4}, {2, 3}, {1, 1}, true, false}))},
    {"adaptive to one", large, MSELoss{}, BUILD(shared(m, x, C, AdaptiveAvgPool2d{1}))},
    {"adaptive", image, MSELoss{}, BUILD(plainly(m, x, C, AdaptiveAvgPool2d{{3, 4}}))},
    {"adaptive to more", image, MSELoss{}, BUILD(shared(m, x, C, AdaptiveAvgPool2d{{5, 12}}))},
    {"upsample", image, MSELoss{}, BUILD(plainly(m, x, C, Upsample{}))},
    {"upsample shared", image, MSELoss{}, BUILD(shared(m, x, C, Upsample{{3, 1}}))},
};

const Trial others[] = {
    {"softmax", row, MSELoss{}, BUILD(shared(m, x, C, Softmax{}))},
    {"softmax of steps", steps, MSELoss{}, BUILD(shared(m, x, C, Softmax{1}))},
    {"softmax of lines", image, MSELoss{}, BUILD(shared(m, x, C, Softmax{2}))},
    {"softmax of channels", image, MSELoss{}, BUILD(plainly(m, x, C, Softmax{3}))},
    {"softmax of many", row, MSELoss{}, BUILD(back(m, m.chain(x, Linear{0, 300}, Softmax{})))},
    {"log softmax", row, MSELoss{}, BUILD(shared(m, x, C, LogSoftmax{}))},
    {"log softmax of columns", image, MSELoss{}, BUILD(shared(m, x, C, LogSoftmax{1}))},
    {"log softmax of channels", image, MSELoss{}, BUILD(plainly(m, x, C, LogSoftmax{-1}))},
    {"concat", image, MSELoss{}, BUILD(back(m, m.add(Concat{}, x, front(m, x, 5), front(m, x, C))))},
    {"concat of fours", image, MSELoss{}, BUILD(shared(m, m.add(Concat{}, x, front(m, x, 8)), C, Sigmoid{}))},
    {"concat of rows", image, MSELoss{}, BUILD(back(m, m.add(Concat{1}, front(m, x, C), x)))},
    {"concat of one twice", image, MSELoss{}, [](Model& m, Tensor x, int C) {
       const Tensor h = front(m, x, C), y = m.add(Concat{2}, h, x, h), z = m.add(Concat{-1}, h);
       return m.add(Add{}, back(m, z), back(m, y), back(m, h));
     }},
    {"flatten of one of two", image, MSELoss{}, [](Model& m, Tensor x, int C) {
       const Tensor h = front(m, x, C);
       return m.add(Add{}, m.chain(h, Flatten{}, Linear{0, 3}),
                    m.chain(h, Sigmoid{}, Flatten{1, 2}, Flatten{}, Linear{0, 3}));
     }},
};

const Trial losses[] = {
    {"NLL", row, NLLLoss{}, BUILD(m.chain(x, Linear{0, C}, LogSoftmax{}))},
    {"NLL of pixels", large, NLLLoss{}, BUILD(m.chain(x, Linear{0, C}, LogSoftmax{}))},
    {"cross entropy of pixels", large, CrossEntropyLoss{0.1f}, BUILD(m.add(Linear{0, C}, x))},
    {"cross entropy of many", row, CrossEntropyLoss{0.2f}, BUILD(m.add(Linear{0, 300}, x))},
    {"BCE", row, BCELoss{}, BUILD(m.chain(x, Linear{0, C}, Sigmoid{}))},
    {"BCE of pixels", image, BCELoss{}, BUILD(m.chain(x, Linear{0, C}, Sigmoid{}))},
    {"BCE with logits", image, BCEWithLogitsLoss{}, BUILD(m.add(Linear{0, C}, x))},
    {"Huber", row, HuberLoss{0.3f}, BUILD(m.add(Linear{0, C}, x))},
    {"Huber of pixels", large, HuberLoss{0.3f}, BUILD(m.add(Linear{0, C}, x))},
    {"L1", image, L1Loss{}, BUILD(m.add(Linear{0, C}, x))},
    {"MSE", row, MSELoss{}, BUILD(m.add(Linear{0, C}, x))},
    {"MSE of pixels", large, MSELoss{}, BUILD(m.add(Linear{0, C}, x))},
    // in the graph: the target has a gradient, or it alone, or both are added to others
    {"BCE of two", row, AnyOp(), [](Model& m, Tensor x, int C) {
       const Tensor a = m.chain(x, Linear{0, C}, Sigmoid{}), b = m.chain(x, Linear{0, C}, Sigmoid{});
       return outputs(m, a, m.add(BCELoss{}, a, b), m.add(BCELoss{}, b, a));
     }},
    {"logits of two", image, AnyOp(), [](Model& m, Tensor x, int C) {
       const Tensor a = m.add(Linear{0, C}, x), b = m.chain(x, Linear{0, C}, Sigmoid{});
       return outputs(m, a, m.add(BCEWithLogitsLoss{}, a, b), m.add(HuberLoss{0.2f}, b, a));
     }},
    {"to the input", image, AnyOp(), [](Model& m, Tensor x, int C) {
       const Tensor a = m.add(Linear{0, C}, x);
       return outputs(m, a, m.add(L1Loss{}, x, a), m.add(MSELoss{}, a, x));
     }},
    {"NLL and another", row, NLLLoss{}, [](Model& m, Tensor x, int C) {
       const Tensor a = m.chain(x, Linear{0, C}, LogSoftmax{});
       const Tensor loss = m.add(MSELoss{}, a, x);
       return outputs(m, a, loss, loss);
     }},
};

std::unique_ptr<Subject> subject_of(const Trial& t, int C, int batch) {
  auto s = std::make_unique<Subject>();
  Model& m = s->net.model;
  const Tensor y = t.build(m, m.input("x", t.x(C)), C);
  if (m.output_count() == 0) m.output("y", y);
  s->loss = t.loss;
  s->optimizer = SGD{0.01f};                  // steps that do not diverge
  s->rows = batch;
  REQUIRE_MESSAGE(s->finish() == Status::ok, m.problem().where << ": " << m.problem().what);
  const std::string name = t.loss ? t.loss.op()->name : "";
  s->fill(batch, name == "NLLLoss" || name == "CrossEntropyLoss" ? C : 0);
  for (real& v : s->x[0]) v = 2 * v + real(0.5);               // a mean beside zero, for the norms
  return s;
}

// Two steps, the second one of fewer rows, then a session on the trainer.
Arrays results(const Trial& trial, const Subject& s, const Backend* on) {
  Arrays all;
  const Model& m = s.net.model;
  TrainerOptions o = s.training(on);
  o.keep_gradients = true;
  o.trainable = trial.trainable;
  if (s.rows == 1) o.clip_norm = 1e6f;         // the norm is of all gradients, also where they are padding
  if (trial.trained) o.names = &trial.trained, o.name_count = 1;
  PlacedTrainer t(m, o);
  REQUIRE_MESSAGE(t.status == Status::ok, t.problem());
  for (int i = 0; i < 2; i++) {
    const std::string number = std::to_string(i);
    Batch b = s.batch();
    if (i > 0 && b.rows > 1) b.rows -= 2;
    REQUIRE_MESSAGE(t.it.step(b) == Status::ok, t.problem());
    all["loss " + number] = {double(t.it.loss())};
    if (s.rows == 1) all["norm " + number] = {double(t.it.gradient_norm())};
    for (int p = 0; p < m.parameter_count(); p++) {
      const ParameterInfo info = m.parameter(p);
      std::vector<real> values(static_cast<size_t>(info.count));
      if (t.it.is_trained(p)) {
        CHECK(t.it.get_gradient(p, values.data()) == Status::ok);
        all["gradient " + number + " of " + info.name] = as_doubles(values);
      }
      CHECK(t.it.get(p, values.data()) == Status::ok);
      all["value " + number + " of " + info.name] = as_doubles(values);
    }
  }
  PlacedSession session(m, s.running(on));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  all["output of the model"] = as_doubles(forward(session.it, s));
  session.build(t.it, s.running(on));
  REQUIRE_MESSAGE(session.status == Status::ok, session.problem());
  all["output"] = as_doubles(forward(session.it, s));
  all["loss of the session"] = {double(session.it.loss())};
  CHECK(!all["output"].empty());
  CHECK(t.memory.intact());
  CHECK(session.memory.intact());
  return all;
}

bool same(const Arrays& a, const Arrays& b) {
  bool all = a.size() == b.size();
  for (const auto& [name, values] : a) all = all && same_bytes(values, b.at(name));
  return all;
}

// Gradients that cancel are as exact as the largest of them all lets them be: what a norm hands to the weight
// before it does so over all pixels, whose size it takes away.
void compare(const Trial& trial, int C, int batch, double& worst, std::string& place) {
  const std::string name =
      std::string(trial.name) + ", " + std::to_string(C) + " channels, batch " + std::to_string(batch);
  CAPTURE(name);
  const auto s = subject_of(trial, C, batch);
  const Backend* const cuda = cuda_backend(0);
  const Arrays cpu = results(trial, *s, nullptr), on = results(trial, *s, cuda);
  CHECK(cpu.size() == on.size());
  double largest = 0;
  const auto is_gradient = [](const std::string& of) { return of.rfind("gradient", 0) == 0; };
  for (const auto& [of, values] : cpu)
    for (double v : values) largest = is_gradient(of) ? std::max(largest, std::fabs(v)) : largest;
  for (const auto& [of, values] : cpu) {
    const double e = error_of(on.at(of), values, is_gradient(of) ? 0.05 * largest : 1e-3);
    CHECK_MESSAGE(e <= tolerance, of << ": " << e);
    if (e > worst || e != e) worst = e, place = name + ", " + of;
  }
  CHECK_MESSAGE(same(results(trial, *s, cuda), on), "other bits in another run");
#ifdef NNLITE_FAKE_CUDA
  if (C == 3 && batch == 5) {
    for (const fake::Order order : {fake::Order::backward, fake::Order::shuffled}) {
      fake::set_order(order, 3);
      CHECK_MESSAGE(same(results(trial, *s, cuda), on), "other bits in another order of threads");
    }
    fake::set_order(fake::Order::forward);
  }
  for (const std::string& found : fake::findings()) CHECK_MESSAGE(false, found);
#endif
  close_cuda(0);                               // device memory for what was built stays there until then
}

template <class List>
void compare_all(const List& list) {
  double worst = 0;
  std::string place;
  int count = 0;
  constexpr int sizes[][2] = {{1, 5}, {3, 1}, {3, 5}, {20, 1}, {20, 5}, {33, 5}};  // channels, batch
  for (const Trial& t : list)
    for (const auto& size : sizes) compare(t, size[0], size[1], worst, place), count++;
  MESSAGE(count << " networks, the worst error " << worst << ": " << place);
}

}  // namespace

TEST_CASE("cuda ops: batch norm") {
  NNLITE_ON_CUDA(cuda);
  compare_all(norms);
}
TEST_CASE("cuda ops: sums of many parts") {
  NNLITE_ON_CUDA(cuda);
  double worst = 0;
  std::string place;
  for (const Trial& t : sums)
    for (const int C : {4, 17}) compare(t, C, 3, worst, place);
  MESSAGE("the worst error " << worst << ": " << place);
}
TEST_CASE("cuda ops: statistics of values far from zero, some of them far from the others") {
  NNLITE_ON_CUDA(cuda);
  for (const int channels : {1, 3, 4, 20})
    for (const int batch : {2, 40}) {
      const Trial trial = {"", large, MSELoss{}, BUILD(back(m, m.add("n", norm(true, true, 1.0f), x)))};
      const auto s = subject_of(trial, channels, batch);
      std::vector<real>& x = s->x[0];
      for (real& v : x) v += 1000;
      for (size_t i = 0; i < x.size(); i += size_t(channels) * 97) x[i] = -3000;       // the first one, too
      PlacedTrainer t(s->net.model, s->training(cuda));
      REQUIRE(t.status == Status::ok);
      REQUIRE(t.it.step(s->batch()) == Status::ok);
      for (int p = 0; p < s->net.model.parameter_count(); p++) {
        const std::string name = s->net.model.parameter(p).name;
        if (name.rfind("n.running", 0) != 0) continue;
        std::vector<real> values(static_cast<size_t>(channels));
        REQUIRE(t.it.get(p, values.data()) == Status::ok);
        for (size_t c = 0; c < values.size(); c++) {
          double mean = 0, squares = 0, n = 0;
          for (size_t i = c; i < x.size(); i += values.size()) mean += double(x[i]), n++;
          mean /= n;
          for (size_t i = c; i < x.size(); i += values.size())
            squares += (double(x[i]) - mean) * (double(x[i]) - mean);
          // of the variance: what rounding does to means a thousand times the deviation
          const bool   is_mean = name == "n.running_mean";
          const double right = is_mean ? mean : squares / (n - 1), share = is_mean ? 2e-7 : 3e-5;
          CHECK_MESSAGE(std::fabs(double(values[c]) - right) <= share * std::fabs(right), name);
        }
      }
      close_cuda(0);
      cuda_backend(0);
    }
}
TEST_CASE("cuda ops: with the ReLU before or behind them") {
  NNLITE_ON_CUDA(cuda);
  compare_all(joined);
}

// The rows of CUDA, but none that joins others.
namespace {
struct Apart {
  std::vector<Kernel> rows;
  std::vector<const Kernel*> list;
};
const Kernel* const* rows_apart(const char* op) {
  static std::map<std::string, Apart> all;
  Apart& a = all[op];
  const Kernel* const* from = cuda_rows()->rows(op);
  if (!a.list.empty() || from == nullptr) return from == nullptr ? nullptr : a.list.data();
  for (; *from != nullptr; from++) a.rows.push_back(**from), a.rows.back().fuses = 0;
  for (const Kernel& k : a.rows) a.list.push_back(&k);
  a.list.push_back(nullptr);
  return a.list.data();
}
using Fused = std::map<std::string, uint8_t>;  // bits of fusion by op
void note_fused(void* fused, const StepView* step) {
  if (step != nullptr && step->op != nullptr)
    (*static_cast<Fused*>(fused))[step->op->name] |= step->run.fused;
}
}  // namespace

TEST_CASE("cuda ops: the same bits whether or not steps are fused") {
  NNLITE_ON_CUDA(cuda);
  Fused fused;
  Backend apart = *cuda;
  apart.rows = rows_apart;
  for (const Trial& trial : joined)
    for (const int C : {3, 20}) {
      CAPTURE(std::string(trial.name));
      const auto s = subject_of(trial, C, 5);
      CHECK(same(results(trial, *s, &apart), results(trial, *s, cuda)));
      TrainerOptions o = s->training(cuda);
      o.trainable = trial.trainable;
      const Watch watch = {note_fused, &fused};
      PlacedTrainer t(s->net.model, o);
      REQUIRE(t.status == Status::ok);
      t.it.watch(&watch);
      REQUIRE(t.it.step(s->batch()) == Status::ok);
      close_cuda(0);
      cuda_backend(0);
    }
  for (const char* norm : {"BatchNorm1d", "BatchNorm2d"})
    CHECK((fused[norm] & (fusion::relu | fusion::mask_dy)) == (fusion::relu | fusion::mask_dy));
  CHECK((fused["BatchNorm2d"] & fusion::mask_dx) != 0);
  for (const char* op : {"Add", "Mul"}) CHECK(fused[op] == (fusion::relu | fusion::mask_dy));
  for (const char* op : {"AdaptiveAvgPool2d", "AvgPool2d", "Dropout", "Upsample"})
    CHECK(fused[op] == fusion::mask_dx);
  CHECK(fused["MaxPool2d"] == fusion::mask_max);
}
TEST_CASE("cuda ops: pooling and upsampling") {
  NNLITE_ON_CUDA(cuda);
  compare_all(pools);
}
TEST_CASE("cuda ops: softmax, concat, flatten") {
  NNLITE_ON_CUDA(cuda);
  compare_all(others);
}
TEST_CASE("cuda ops: losses") {
  NNLITE_ON_CUDA(cuda);
  compare_all(losses);
}

// Gradients that are not kept lie where other values lay before, so zeros of padding were written by the op.
namespace {
int padded_gradients = 0;
void look_at_padding(void* backend, const StepView* step) {
  if (step == nullptr || step->kind != StepKind::backward) return;
  if (step->op != &BatchNorm1d::op && step->op != &BatchNorm2d::op) return;
  const Backend& on = *static_cast<const Backend*>(backend);
  const size_t   C = static_cast<size_t>(step->run.out_shape().last());
  for (int p = 0; p < 2; p++) {
    std::vector<real> values((C + 15) / 16 * 16);
    real* const from = step->run.dparameter(p);
    if (from == nullptr) continue;
    REQUIRE(on.copy(on.user, from, values.data(), values.size() * sizeof(real), Copy::from_device) ==
            Status::ok);
    for (size_t i = C; i < values.size(); i++) CHECK(values[i] == 0);
    padded_gradients++;
  }
}
}  // namespace

TEST_CASE("cuda ops: gradients of batch norm are zero where they are padding") {
  NNLITE_ON_CUDA(cuda);
  for (const Trial& trial : norms) {
    if (trial.trainable != Trainable::all) continue;
    CAPTURE(std::string(trial.name));
    const auto s = subject_of(trial, 20, 5);
    const Watch watch = {look_at_padding, const_cast<Backend*>(cuda_backend(0))};
    PlacedTrainer t(s->net.model, s->training(cuda_backend(0)));
    REQUIRE(t.status == Status::ok);
    t.it.watch(&watch);
    for (int i = 0; i < 2; i++) REQUIRE(t.it.step(s->batch()) == Status::ok);
  }
  CHECK(padded_gradients >= 20);
  close_cuda(0);
}

// The planner makes no step of a view: a Flatten that copies runs right behind a Sigmoid, over its results.
namespace {
void flatten_too(void* backend, const StepView* step) {
  if (step == nullptr || step->op != &Sigmoid::op) return;
  const Flatten flatten;
  const bool    back = step->kind == StepKind::backward;
  OpRun run = step->run;
  run.attributes = &flatten;
  run.accumulate_bits = 1;
  if (backend != nullptr)
    static_cast<Backend*>(backend)->rows("Flatten")[back ? 1 : 0]->run[0](run, 0, 0, 1, 0);
  else (back ? Flatten::op.backward : Flatten::op.forward)(&flatten, run);
}
}  // namespace

TEST_CASE("cuda ops: flatten by its rows") {
  NNLITE_ON_CUDA(cuda);
  const Trial trial = {"", row, MSELoss{},
                       [](Model& m, Tensor x, int C) { return m.add(Sigmoid{}, front(m, x, C)); }};
  const auto s = subject_of(trial, 7, 5);
  TrainerOptions o = s->training(nullptr);
  o.keep_gradients = true;
  std::vector<real> gradients[2], plain;
  for (int k = 0; k < 3; k++) {
    Backend* const on = k == 1 ? const_cast<Backend*>(cuda) : nullptr;
    const Watch watch = {flatten_too, on};
    o.backend = on;
    PlacedTrainer t(s->net.model, o);
    REQUIRE(t.status == Status::ok);
    if (k < 2) t.it.watch(&watch);
    REQUIRE(t.it.step(s->batch()) == Status::ok);
    std::vector<real>& to = k < 2 ? gradients[k] : plain;
    to.resize(7 * 7);
    REQUIRE(t.it.get_gradient(0, to.data()) == Status::ok);
  }
  CHECK(error_of(as_doubles(gradients[1]), as_doubles(gradients[0])) <= 1e-6);
  CHECK(error_of(as_doubles(gradients[1]), as_doubles(plain)) > 0.1);
}
