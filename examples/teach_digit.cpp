// "No, that is a 7": a model that read a picture wrong is taught on the device, and saved.
// Only the last layer is trained; the others stay in the mapped file. The lesson is the picture, changed a
// little each time, among ten digits that the device draws, so that it does not forget them.
//
//   g++ -O2 -std=c++17 -I.. teach_digit.cpp -lpthread -o teach_digit
//   ./teach_digit ../models/digits.nnl odd_seven.pgm 7 taught.nnl
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"
#include "shared.hpp"

#include <math.h>
#include <string.h>
using namespace nnlite;

static int report(const Problem& problem) {
  return fprintf(stderr, "teach_digit: %s: %s\n", problem.where, problem.what), 1;
}

// Strokes: column and row of each point, a blank between two strokes.
static const char* const hands[10] = {
    "301103061829495866635130", "123039", "021041520969", "01204142435434 3454574929180807",
    "400666 4349", "5010043455674929180807", "5021040729496765542405", "006029",
    "301012234657583929081625515030", "523011143552 5239"};

constexpr int side = 48;
static void draw(const char* strokes, uint8_t* picture) {
  for (int i = 0; i < side * side; i++) picture[i] = 220;    // paper
  for (const char* p = strokes; strlen(p) >= 4; p += p[4] == ' ' ? 5 : 2)
    for (int i = 0; i < side * side; i++) {
      const double x = 9 + 5 * (p[0] - '0'), y = 6 + 4 * (p[1] - '0');
      const double u = 5 * (p[2] - p[0]), v = 4 * (p[3] - p[1]), a = i % side - x, b = i / side - y;
      const double at = fmin(fmax((a * u + b * v) / (u * u + v * v), 0), 1);
      if (hypot(a - at * u, b - at * v) < 2.5) picture[i] = 40;               // ink
    }
}

// What the device keeps of pictures: the model's inputs, one byte a pixel. First the lesson, then its own.
constexpr int lesson = 5, all = lesson + 10;
static uint8_t kept[all][28 * 28], answers[all];

// The digit that the picture shows, -1 when something is wrong; `sure` is the model's confidence.
static int read(Session& session, const Image& image, uint8_t* keep, real& sure) {
  const Preprocessing& how = *session.model()->extras()->preprocessing;
  if (!ok(session.set_image(image))) return -1;
  for (int i = 0; i < 28 * 28; i++)                          // before forward, which may use their memory
    keep[i] = static_cast<uint8_t>((session.input()[i] * how.std[0] + how.mean[0]) / how.scale + 0.5f);
  if (!ok(session.forward())) return -1;
  sure = confidence(session.output().data, static_cast<int>(session.output().size()));
  return argmax(session.output());
}

// Reads and keeps the ten digits that the device draws; gives how many of them are read right.
static int read_own(Session& session) {
  int right = 0;
  for (uint8_t digit = 0; digit < 10; digit++) {
    uint8_t picture[side * side];
    real sure;
    draw(hands[digit], picture);
    right += read(session, Image{picture, side, side, 1}, kept[lesson + digit], sure) == digit;
    answers[lesson + digit] = digit;
  }
  return right;
}

int main(int argc, char** argv) {
  Image image;
  const std::vector<uint8_t> pixels = argc == 5 ? read_pnm(argv[2], image) : std::vector<uint8_t>();
  const int answer = argc == 5 && strlen(argv[3]) == 1 ? argv[3][0] - '0' : -1;
  if (pixels.empty() || answer < 0 || answer > 9)
    return fprintf(stderr, "usage: teach_digit MODEL PICTURE DIGIT OUT, the picture a PGM or PPM\n"), 2;
  MappedFile file;
  Memory records(16384);
  Model model;
  if (!ok(file.open(argv[1]))) return fprintf(stderr, "teach_digit: %s cannot be read\n", argv[1]), 1;
  if (!ok(model.load(file.data(), file.size(), records.arena))) return report(model.problem());
  if (!model.extras() || !model.extras()->preprocessing || model.input_shape(0).row_numel() != 28 * 28)
    return fprintf(stderr, "teach_digit: %s does not read pictures as MNIST has them\n", argv[1]), 1;
  TrainerOptions options;
  options.batch     = 5;
  options.loss      = CrossEntropyLoss{};
  options.optimizer = AdamW{0.003f};
  options.trainable = Trainable::head;                       // the last layer with parameters
  options.augment   = Augment{10, 0.1f, 0.1f, 1};            // degrees, scale, shear, shift
  SessionOptions look;
  look.max_image = {image.height > side ? image.height : side, image.width > side ? image.width : side};
  MemoryPlan teaching, reading;
  if (!ok(Trainer::plan(model, options, teaching))) return report(teaching.problem);
  if (!ok(Session::plan(model, look, reading))) return report(reading.problem);
  printf("%zu bytes to read, %zu more to learn\n", reading.total, teaching.total + sizeof kept);
  Memory memory(teaching.total + reading.total);
  Trainer trainer;
  Session session;                                           // reads with what the trainer knows so far
  if (!ok(trainer.build(model, options, memory.arena))) return report(trainer.problem());
  if (!ok(session.build(trainer, look, memory.arena))) return report(session.problem());
  real sure = 0;
  const int before = read(session, image, kept[0], sure);
  if (before < 0) return report(session.problem());
  if (session.seen() != Seen::one) return fprintf(stderr, "teach_digit: %s shows no digit\n", argv[2]), 1;
  const int own = read_own(session);
  printf("it is read as %d (%.1f %%)\n", before, 100 * double(sure));
  for (int i = 0; i < lesson; i++) memcpy(kept[i], kept[0], sizeof kept[0]), answers[i] = uint8_t(answer);
  const Preprocessing& how = *model.extras()->preprocessing;
  Dataset data;
  data.count      = all;
  data.columns[0] = Column{kept, DType::u8, how.scale / how.std[0], -how.mean[0] / how.std[0]};
  data.columns[1] = Column{answers, DType::u8};
  if (!ok(trainer.set_data(data))) return report(trainer.problem());
  int after = before, steps = 0;
  for (; (after != answer || sure < 0.8f) && steps < 100; steps++) {
    if (!ok(trainer.step())) return report(trainer.problem());
    after = read(session, image, kept[0], sure);
  }
  printf("no, that is a %d: after %d steps read as %d (%.1f %%)\n", answer, steps, after, 100 * double(sure));
  printf("of ten digits that the device draws %d are read right, %d before\n", read_own(session), own);
  ModelExtras extras = *model.extras();
  extras.golden_count = 0;                                   // they are of the old weights
  Problem problem;
  if (!ok(save(trainer, argv[4], &extras, &problem))) return report(problem);
  return after == answer ? 0 : 1;
}
