#include "network.hpp"

#include <fmt/format.h>

#include <cstring>

using namespace nnlite;

namespace {

const char* advice_for(Status status) {
  switch (status) {
    case Status::bad_checksum: return "copy the file again";
    case Status::bad_format: return "give a .nnl file that nnlite wrote";
    case Status::bad_label: return "check the labels";
    case Status::device_error: return "check with nvidia-smi, or leave --cuda out";
    case Status::io_error: return "check the disk";
    case Status::limit_exceeded: return "use a smaller model";
    case Status::not_finite: return "lower --lr or set --clip-norm";
    case Status::out_of_memory: return "use a smaller batch or model";
    case Status::unknown_op:
    case Status::unsupported: return "use a newer nnlite, or a model without it";
    case Status::wrong_arithmetic: return "resume with the nnlite and the instruction set that wrote it";
    case Status::wrong_data: return "give the --data it was made with";
    default: return "check the model";
  }
}

bool append(void* user, const void* from, std::size_t n) {
  Bytes& bytes = *static_cast<Bytes*>(user);
  const std::uint8_t* p = static_cast<const std::uint8_t*>(from);
  bytes.insert(bytes.end(), p, p + n);
  return true;
}

template <class T>
Bytes serialised(const T& what, const ModelExtras& extras) {
  Bytes bytes;
  Problem problem;
  require(save(what, Sink{append, &bytes}, &extras, &problem), problem, "the model");
  return bytes;
}

}  // namespace

void require(Status status, const Problem& problem, const std::string& where, const char* advice) {
  if (ok(status)) return;
  const std::string general = describe(status);
  std::string what = problem.what[0] ? problem.what : general;
  if (status == Status::bad_checksum) what = general;  // the rest would say again that it is damaged
  if (status == Status::io_error && what.rfind(general + ": ", 0) == 0) what.erase(0, general.size() + 2);
  std::string place = where;
  if (problem.where[0] && problem.where != final_path(where)) place += std::string(", ") + problem.where;
  if (problem.offset) place += fmt::format(", byte {}", problem.offset);
  fail(what, place, advice ? advice : advice_for(status));
}

std::unique_ptr<Network> load_network(const Bytes& bytes, const std::string& name) {
  std::unique_ptr<Network> network = std::make_unique<Network>();
  network->name = name;
  network->file = Memory(bytes.size());
  std::memcpy(network->file.data(), bytes.data(), bytes.size());
  std::size_t size = 0;
  Problem problem;
  const Source source = memory_source(network->file.data(), bytes.size());
  require(load_size(source, LoadOptions{}, size, &problem), problem, name);
  network->records = Memory(size);
  Arena arena = network->records.arena();
  require(network->model.load(network->file.data(), bytes.size(), arena), network->model.problem(), name);
  return network;
}

std::unique_ptr<Network> load_network(const std::string& path) {
  return load_network(read_file(path, "a model"), path);
}

Bytes serialise(const Model& model, const ModelExtras& extras) { return serialised(model, extras); }
Bytes serialise(const Trainer& trainer, const ModelExtras& extras) { return serialised(trainer, extras); }

ModelExtras extras_of(const Model& model) { return model.extras() ? *model.extras() : ModelExtras{}; }

Preprocessing preprocessing_of(const Model& model) {
  const ModelExtras extras = extras_of(model);
  return extras.preprocessing ? *extras.preprocessing : Preprocessing{};
}

std::string last_op(const Model& model) {
  const Op* op = model.node(model.node_count() - 1).op;
  return op ? op->name : "";
}

void check_usable(const Model& model, const std::string& name) {
  const char* what = nullptr;
  if (model.input_count() != 1) what = "a model with several inputs";
  else if (model.input_dtype(0) != real_dtype) what = "a model whose input is whole numbers";
  else if (model.node_count() == 1) what = "a model without layers";
  if (what) fail(what, name, "give one with layers and one input of real numbers");
}

int output_size(const Model& model) { return static_cast<int>(model.output_shape(0).row_numel()); }

std::vector<std::string> labels_of(const Model& model) {
  const ModelExtras extras = extras_of(model);
  std::vector<std::string> labels(extras.labels, extras.labels + extras.label_count);
  if (labels.size() == 1 && output_size(model) == 1) labels.insert(labels.begin(), "not " + labels[0]);
  if (labels.empty())
    for (int i = 0; i < std::max(2, output_size(model)); ++i) labels.push_back(std::to_string(i));
  return labels;
}

std::string shape_text(const Shape& shape) {
  std::string text;
  for (int i = shape.batched() ? 1 : 0; i < shape.rank; ++i)
    text += fmt::format("{}{}", text.empty() ? "" : " x ", shape.dim[i]);
  return text.empty() ? "1" : text;
}

Dims dims_of(const Shape& shape) {
  Dims dims;
  for (int i = shape.batched() ? 1 : 0; i < shape.rank; ++i) dims.dim[dims.rank++] = shape.dim[i];
  return dims;
}

std::string sha256_hex(const Bytes& bytes) {
  Sha256 sha;
  sha.add(bytes.data(), bytes.size());
  std::uint8_t digest[32];
  sha.finish(digest);
  std::string text;
  for (std::uint8_t byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}
