#include "evaluate.hpp"

#include <algorithm>
#include <cmath>

#include "failure.hpp"

using namespace nnlite;

Answer answer_of(const Model& model) {
  const Answer stored = extras_of(model).answer;
  if (stored != Answer::none) return stored;
  const std::string last = last_op(model);
  if (target_of(model) != Target::classes) return last == "Sigmoid" ? Answer::threshold : Answer::sigmoid;
  return last == "Softmax" || last == "Sigmoid" ? Answer::argmax : Answer::softmax;
}

std::vector<double> probabilities(const Model& model, const float* row) {
  const int n = output_size(model);
  std::vector<double> p(row, row + n);
  const Answer answer = answer_of(model);
  if (answer ==
      Answer::softmax) {  // of log-probabilities too: they are logits whose sum of exponentials is 1
    const double most = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - most);
    for (double& v : p) v /= sum;
  }
  if (answer == Answer::sigmoid)
    for (double& v : p) v = 1 / (1 + std::exp(-v));
  if (n == 1) p.insert(p.begin(), 1 - p[0]);
  return p;
}

Evaluation evaluate(Session& session, const Samples& samples) {
  const Model& model = *session.model();
  const Target target = target_of(model);
  Evaluation e;
  e.count = samples.count();
  e.classes = target == Target::yes_no ? 2 : target == Target::classes ? output_size(model) : 0;
  e.confusion.assign(static_cast<std::size_t>(e.classes * e.classes), 0);
  Confusion confusion{e.confusion.data(), e.classes};
  const int last = model.input_count();
  const std::size_t width = static_cast<std::size_t>(output_size(model));
  for (std::size_t from = 0; from < e.count; from += static_cast<std::size_t>(session.batch())) {
    const std::size_t rows = std::min(e.count - from, static_cast<std::size_t>(session.batch()));
    for (std::size_t k = 0; k < rows; ++k) {
      put_input(samples, from + k, session.input().row(static_cast<std::int64_t>(k)));
      if (target == Target::classes)
        session.input_i32(last)[static_cast<std::int64_t>(k)] = samples.labels[from + k];
      else put_target(samples, from + k, session.input(last).data + k * width);
    }
    require(session.forward(static_cast<int>(rows)), session.problem(), samples.source);
    e.loss += static_cast<double>(session.loss()) * static_cast<double>(rows);
    const View<const real> out = session.output();
    for (std::size_t k = 0; k < rows && e.classes > 0; ++k) {
      const std::vector<double> p = probabilities(model, out.data + k * width);
      const int answer = static_cast<int>(std::max_element(p.begin(), p.end()) - p.begin());
      const bool right = answer == samples.labels[from + k];
      const Seen seen = samples.seen.empty() ? Seen::one : static_cast<Seen>(samples.seen[from + k]);
      const bool rejected = why_rejected(model, seen, p) != nullptr;
      e.rejected += rejected;
      e.rejected_right += rejected && right;
      confusion.add(samples.labels[from + k], answer);
      if (right) e.right.push_back(p[static_cast<std::size_t>(answer)]);
    }
  }
  std::sort(e.right.begin(), e.right.end());
  e.loss /= static_cast<double>(e.count);
  e.accuracy = e.classes > 0 ? confusion.accuracy() : std::nan("");
  return e;
}

const char* why_rejected(const Model& model, Seen seen, const std::vector<double>& p) {
  static const char* const reasons[] = {nullptr, "blank", "several digits", "noise"};
  const ModelExtras extras = extras_of(model);
  if (seen == Seen::blank || seen == Seen::several) return reasons[static_cast<int>(seen)];
  const bool tells = extras.answer == Answer::softmax && extras.threshold > 0;
  const bool sure = tells && *std::max_element(p.begin(), p.end()) >= static_cast<double>(extras.threshold);
  if (seen == Seen::noise) return sure ? nullptr : "noise";  // lines and wrinkles of paper are noise, too
  return sure || !tells ? nullptr : "unsure";
}

float threshold_for(const std::vector<double>& right, double share) {
  if (right.empty()) return 0;
  const std::size_t below =
      std::min(right.size() - 1, static_cast<std::size_t>(share * static_cast<double>(right.size())));
  const float threshold = static_cast<float>(right[below]);
  return static_cast<double>(threshold) <= right[below] ? threshold : std::nextafter(threshold, 0.0f);
}
