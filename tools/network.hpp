// A model with the memory it lives in, and what its problems look like to a person.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "failure.hpp"
#include "file.hpp"
#include "memory.hpp"
#include "nnlite.hpp"

struct Network {
  std::string name;  // for messages: the file, or the architecture
  Memory file;       // the .nnl, used in place
  Memory records;
  nnlite::Model model;

  Network() = default;                        // to load into
  explicit Network(std::size_t record_bytes)  // to build in
      : records(record_bytes), model(records.data(), records.size()) {}
};

// Loads a `.nnl` from a file, or from bytes in memory. Fails with the reason and the place in the file.
std::unique_ptr<Network> load_network(const std::string& path);
std::unique_ptr<Network> load_network(const Bytes& bytes, const std::string& name);

// The bytes of a `.nnl` of the model, or of the trainer's weights of the moment.
Bytes serialise(const nnlite::Model& model, const nnlite::ModelExtras& extras);
Bytes serialise(const nnlite::Trainer& trainer, const nnlite::ModelExtras& extras);

// What the file carries beside the graph; nothing for a model that was built here.
nnlite::ModelExtras extras_of(const nnlite::Model& model);
nnlite::Preprocessing preprocessing_of(const nnlite::Model& model);

// The names of the classes: the file's labels, else numbers.
std::vector<std::string> labels_of(const nnlite::Model& model);

// The name of the last layer's op; empty where there is none.
std::string last_op(const nnlite::Model& model);

// Fails unless the model has one input of real numbers, and layers.
void check_usable(const nnlite::Model& model, const std::string& name);

// Length of output 0 for one row.
int output_size(const nnlite::Model& model);

// A shape without the batch: "28 x 28 x 1".
std::string shape_text(const nnlite::Shape& shape);
nnlite::Dims dims_of(const nnlite::Shape& shape);

// Throws a Failure that says what went wrong, unless status is ok. `where` is a file or an architecture;
// without advice there is one for each status.
void require(nnlite::Status status, const nnlite::Problem& problem, const std::string& where,
             const char* advice = nullptr);

std::string sha256_hex(const Bytes& bytes);
