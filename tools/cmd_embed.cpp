// nnlite embed: a model as a C++ header, an array that is used in place and the ops that it needs.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "command.hpp"
#include "file.hpp"
#include "lessons.hpp"
#include "network.hpp"
#include "notes.hpp"

using namespace nnlite;

namespace {

struct Options {
  Common common;
  std::string model, out;
  int max_image = 0;  // pixels a side
};

// "digits" of some/digits_nnl.h or some/digits.h.
std::string name_of(const std::string& out) {
  std::string name = std::filesystem::path(out).stem().string();
  const std::size_t cut = name.rfind("_nnl");
  if (cut != std::string::npos && cut > 0 && cut + 4 == name.size()) name.resize(cut);
  const auto fits = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  const bool reserved = name.empty() || name[0] == '_' || name.find("__") != std::string::npos;
  if (reserved || std::isdigit(static_cast<unsigned char>(name[0])) ||
      !std::all_of(name.begin(), name.end(), fits))
    throw UsageError{
        fmt::format("OUT: '{}' is no name in C++: letters, digits and single _, a letter first", name)};
  return name;
}

std::set<std::string> ops_of(const Model& model) {
  std::set<std::string> names;  // in the order that OpSet wants
  for (int i = 0; i < model.node_count(); ++i)
    if (const Op* op = model.node(i).op) names.insert(op->name);
  return names;
}

const FileKind header_kind = {"embedded model", "// A model, by nnlite embed."};

// What load and a session of one row take.
std::size_t arena_bytes(const Network& network, int max_image) {
  SessionOptions options;
  if (max_image > 0) options.max_image = max_image;
  options.derived_weights = false;
  MemoryPlan plan;
  require(Session::plan(network.model, options, plan), plan.problem, network.name);
  return network.records.size() + plan.total;
}

std::string header_of(const std::string& name, const Bytes& file, const std::set<std::string>& ops,
                      std::size_t bytes, int max_image) {
  std::string list, out;
  for (const std::string& op : ops) list += fmt::format("{}&nnlite::{}::op", list.empty() ? "" : ", ", op);
  out += fmt::format(
      "{3} Its sha256: {1}\n"
      "// Include it in one source file, after nnlite.hpp. The weights are used where they are:\n"
      "//   model.load({0}_nnl, arena, nnlite::LoadOptions{{{0}_ops}})\n"
      "// Build sessions with SessionOptions::derived_weights = false, so that they keep no copies of "
      "weights.\n"
      "// The model's records and a session of one row then take {0}_arena bytes on a 64-bit machine, else "
      "less.\n{2}"
      "#pragma once\n"
      "#ifndef NNLITE_HPP\n"
      "#error \"include nnlite.hpp before this file\"\n"
      "#endif\n\n",
      name, sha256_hex(file),
      max_image == 0
          ? ""
          : fmt::format("// set_image takes any size up to SessionOptions::max_image = {}_max_image.\n",
                        name),
      header_kind.mark);
  out += fmt::format("static const size_t {}_arena = {};\n", name, bytes);
  if (max_image > 0) out += fmt::format("static const int {}_max_image = {};\n", name, max_image);
  if (ops.empty()) out += fmt::format("static const nnlite::OpSet {}_ops = {{nullptr, 0}};\n\n", name);
  else
    out += fmt::format(
        "static const nnlite::Op* const {0}_op_list[] = {{{1}}};\n"
        "static const nnlite::OpSet {0}_ops = {{{0}_op_list, {2}}};\n\n",
        name, list, ops.size());
  out += fmt::format("alignas(64) static const unsigned char {}_nnl[{}] = {{", name, file.size());
  for (std::size_t i = 0; i < file.size(); ++i) {
    out += i % 32 == 0 ? "\n" : "";
    fmt::format_to(std::back_inserter(out), "{},", file[i]);
  }
  return out + "\n};\n";
}

void run(const Options& o) {
  const std::string name = name_of(o.out);
  check_different({{"OUT", o.out}}, {{"MODEL", o.model}});
  check_writable(o.out);
  check_ending({"OUT", o.out}, {".h", ".hpp"});
  check_replaces({"OUT", o.out}, header_kind);
  const std::unique_ptr<Network> given = load_network(o.model);
  ModelExtras extras = extras_of(given->model);
  const std::vector<OtherSection> sections = sections_with(extras, {});  // without lessons
  extras.others = sections.data();
  extras.other_count = static_cast<int>(sections.size());
  const std::vector<Metadata> metadata = metadata_with(extras, {});
  const Bytes file =
      serialise(given->model, with_metadata(extras, metadata));  // of a checkpoint, the model alone
  const std::unique_ptr<Network> network = load_network(file, o.model);
  const std::set<std::string> ops = ops_of(network->model);
  const std::size_t bytes = arena_bytes(*network, o.max_image);
  write_file(o.out, header_of(name, file, ops, bytes, o.max_image));
  if (o.common.json)
    print_json({{"model", o.model},
                {"header", o.out},
                {"array", name + "_nnl"},
                {"bytes", file.size()},
                {"ops", ops},
                {"arena_bytes", bytes}});
  else
    fmt::print("{}: {}_nnl, {} bytes; {}_ops: {}; {} bytes of arena\n", o.out, name, file.size(), name,
               fmt::join(ops, " "), bytes);
}

}  // namespace

void add_embed(CLI::App& program, int&) {
  auto o = std::make_shared<Options>();
  CLI::App& c = *program.add_subcommand("embed", "A model as a C++ header, to be used in place from flash");
  c.add_option("MODEL", o->model, "The model, a .nnl file")->required();
  c.add_option("OUT", o->out, "The header; digits_nnl.h or digits.h holds digits_nnl and digits_ops")
      ->required();
  c.add_option(
       "--max-image", o->max_image,
       "Room for set_image with pictures of up to so many pixels a side, of a model with a digit front end")
      ->check(CLI::Range(1, 16384));
  add_common(c, o->common);
  c.callback([o] { run(*o); });
}
