// The command line of train and finetune.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "failure.hpp"
#include "fit_run.hpp"
#include "plot.hpp"

namespace {

const std::uint64_t most_steps = 0x7FFFFFFF;

// What is taken where the option is not given; only finetune has lessons.
std::string defaults(const CLI::App& c, const char* usual, const char* for_lesson) {
  return c.get_name() == "finetune" ? fmt::format(" (default{}; for a lesson {})", usual, for_lesson)
                                    : fmt::format(" (default{})", usual);
}

void add_recipe(CLI::App& c, FitOptions& o) {
  c.add_option(
      "--optimizer", o.optimizer,
      "sgd, adagrad, rmsprop, adam or adamw, with settings: sgd:momentum=0.9,nesterov (default adam)");
  c.add_option("--lr", o.lr, "Learning rate" + defaults(c, ": the optimizer's", "0.006"))
      ->check(positive_number());
  c.add_option(
      "--schedule", o.schedule,
      "constant, step:step_size=5,gamma=0.3, exponential:gamma=0.9, cosine, onecycle or plateau:patience=3 "
      "(default onecycle)");
  c.add_option("--warmup", o.warmup, "Steps over which the learning rate grows first")
      ->check(whole_number(0, most_steps));
  c.add_option("--weight-decay", o.weight_decay, "Weight decay (default: the optimizer's)")
      ->check(real_number(0));
  c.add_option("--clip-norm", o.clip_norm, "Largest norm of all gradients together")->check(real_number(0));
  c.add_option("--clip-value", o.clip_value, "Largest magnitude of a gradient")->check(real_number(0));
  c.add_option(
      "--augment", o.augment,
      "Change pictures at random: digits, or settings: degrees=15,scale=0.1,shear=0.1,shift=2,thinner=0.3,"
      "thicker=0.3,background=0" +
          defaults(c, " none", "digits"));
  c.add_option("--label-smoothing", o.label_smoothing, "How much of each target is spread over all classes")
      ->check(real_number(0, 0.9));
  c.add_option(
       "--others", o.others,
       "Learn what is no digit, from that many drawings of letters, symbols and noise for each sample" +
           defaults(c, " 0", "0.1 if the model rejects"))
      ->check(real_number(0, 1));
  c.add_option("--reject", o.reject,
               "Reject unsure answers: at most this share of the right ones on validation data")
      ->check(real_number(0, 0.5));
  c.add_option(
       "--val", o.val,
       "Share of the data held out for validation" + defaults(c, ": the t10k-* files, else 0.1", "none"))
      ->check(real_number(0, 0.9));
}

void add_records(CLI::App& c, FitOptions& o) {
  c.add_option("--checkpoint", o.checkpoint,
               "Where to keep what is needed to go on after a stop (default: the file of --resume)");
  c.add_option("--checkpoint-every", o.checkpoint_every,
               "Steps between checkpoints (default: every epoch and minute)")
      ->check(whole_number(1, most_steps));
  c.add_option("--resume", o.resume,
               "Go on from this checkpoint, with its settings, but not --steps, --checkpoint-every, --log, "
               "--plot, --threads and --cuda");
  c.add_option("--log", o.log, "Write a row for every epoch, a .csv file");
  c.add_option("--plot", o.plot, "Draw loss and accuracy, an .svg file");
}

// A word that a shell takes as it is.
std::string quoted(const std::string& word) {
  const std::string plain = "/._-+=:,@%";
  const auto fits = [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || plain.find(c) != std::string::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), fits)) return word;
  std::string text = "'";
  for (char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

}  // namespace

void add_fit_options(CLI::App& c, FitOptions& o) {
  o.command = &c;
  c.add_option(
       "--data", o.data,
       "Folder with IDX files (train-*), folder of class folders, .csv (features, used as they are, and "
       "last the number of the class), synthetic-digits[:COUNT], or synthetic; several are put together")
      ->required()
      ->allow_extra_args(false);
  c.add_option("--out", o.out, "Where the model goes, a .nnl file")->required();
  c.add_option("--epochs", o.epochs, "How often to go through the data" + defaults(c, " 10", "8"))
      ->check(whole_number(1, 1000000));
  c.add_option("--steps", o.steps,
               "Stop after this many steps since the run began, if they come first; a checkpoint does not "
               "keep this: give it again with --resume")
      ->check(whole_number(1));
  c.add_option("--batch", o.batch, "Samples a step (default 64)")->check(whole_number(1, 1 << 20));
  add_recipe(c, o);
  add_records(c, o);
  add_cuda(c, o.common);
  add_common(c, o.common);
}

void check_files(const FitOptions& o) {
  if (!o.resume.empty() && !exists(o.resume))
    fail("no such checkpoint", o.resume, "check its name, or start anew without --resume");
  const bool going_on = !o.resume.empty() && final_path(o.resume) == final_path(o.checkpoint);
  std::vector<NamedFile> inputs = {{"MODEL", o.model}, {"--resume", going_on ? "" : o.resume}};
  for (const std::string& data : o.data) inputs.push_back({"--data", data});
  check_different({{"--out", o.out}, {"--checkpoint", o.checkpoint}, {"--log", o.log}, {"--plot", o.plot}},
                  inputs);
  if (o.update.empty()) throw UsageError{"--update: name what changes: all, bias, head or layers"};
  for (const std::string* path : {&o.out, &o.checkpoint, &o.log, &o.plot})
    if (!path->empty()) check_writable(*path);
  if (!o.plot.empty()) check_ending({"--plot", o.plot}, {".svg"});
  if (!o.log.empty()) check_ending({"--log", o.log}, {".csv"});
  check_replaces({"--out", o.out}, model_kind);
  if (o.checkpoint != o.resume) check_replaces({"--checkpoint", o.checkpoint}, model_kind);
  check_replaces({"--log", o.log}, log_kind);
  check_replaces({"--plot", o.plot}, plot_kind);
  if (o.arch.empty() && o.model.empty() && o.resume.empty())
    throw UsageError{"--arch is required, unless --resume is given"};
}

// The checkpoint holds the other settings.
std::string command_to_go_on(const FitOptions& o) {
  std::string text = o.model.empty() ? "nnlite train" : "nnlite finetune " + quoted(o.model);
  const auto add = [&](const char* option, const std::string& value) {
    text += std::string(" ") + option + " " + quoted(value);
  };
  for (const std::string& data : o.data) add("--data", data);
  add("--out", o.out);
  add("--resume", o.checkpoint);
  if (!o.log.empty()) add("--log", o.log);
  if (!o.plot.empty()) add("--plot", o.plot);
  if (o.steps > 0) add("--steps", std::to_string(o.steps));
  if (o.checkpoint_every > 0) add("--checkpoint-every", std::to_string(o.checkpoint_every));
  if (o.common.threads > 0) add("--threads", std::to_string(o.common.threads));
  if (o.common.cuda) text += o.common.tf32 ? " --cuda --tf32" : o.common.bf16 ? " --cuda --bf16" : " --cuda";
  return text + (o.common.json ? " --json" : "");
}
