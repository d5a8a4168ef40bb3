// Reads the digit in a picture file: which one it is and how sure the model is, or that it is none.
//
// The picture is a photograph of one digit, in ink of any colour on paper of any colour. The model says
// itself how a picture becomes its input, what its outputs are called and how sure an answer must be.
//
//   g++ -O2 -std=c++17 -I.. predict_digit.cpp -lpthread -o predict_digit
//   ./predict_digit ../models/digits.nnl seven.pgm
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"
#include "shared.hpp"

using namespace nnlite;

static int report(const char* where, const char* what) {
  fprintf(stderr, "predict_digit: %s: %s\n", where, what);
  return 1;
}

// Why the picture last set is no answer; nullptr when it is one.
static const char* why_rejected(const Session& session, const ModelExtras& extras, real sure) {
  if (session.seen() == Seen::blank) return "blank";
  if (session.seen() == Seen::several) return "several digits";
  if (extras.answer != Answer::softmax || sure >= real(extras.threshold)) return nullptr;
  return session.seen() == Seen::noise ? "noise" : "unsure";
}

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: predict_digit MODEL PICTURE\n"), 2;
  Image image;
  const std::vector<uint8_t> pixels = read_pnm(argv[2], image);
  if (pixels.empty()) return report(argv[2], "not a whole binary PGM or PPM picture of 8 bits");

  MappedFile file;
  if (!ok(file.open(argv[1]))) return report(argv[1], "cannot be read");
  size_t bytes = 0;
  Problem problem;
  if (!ok(load_size(file.source(), LoadOptions(), bytes, &problem))) return report(argv[1], problem.what);
  Memory records(bytes);
  Model model;
  if (!ok(model.load(file.data(), file.size(), records.arena))) return report(argv[1], model.problem().what);

  MemoryPlan plan;
  SessionOptions options;
  options.max_image = {image.height, image.width};           // finding the digit takes memory, planned too
  if (!ok(Session::plan(model, options, plan))) return report(argv[1], plan.problem.what);
  Memory memory(plan.total);
  Session session;
  Status status = session.build(model, options, memory.arena);
  if (ok(status)) status = session.set_image(image);
  if (ok(status)) status = session.forward();
  if (!ok(status)) return report(argv[2], describe(status));

  const View<const real> scores = session.output();
  const int  best = argmax(scores);
  const real sure = confidence(scores.data, static_cast<int>(scores.size()));
  const ModelExtras none, &extras = model.extras() ? *model.extras() : none;
  const char* const rejected = why_rejected(session, extras, sure);
  if (rejected) printf("rejected: %s, best guess ", rejected);
  if (best < extras.label_count) printf("%s", extras.labels[best]);
  else printf("%d", best);
  if (extras.answer == Answer::softmax) printf("  %.1f %%", 100 * double(sure));
  printf("\n");
  return 0;
}
