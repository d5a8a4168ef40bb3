// DATA of the command line: a folder with IDX files, a folder of class folders, a .csv table, "synthetic" or
// "synthetic-digits[:COUNT]".
#pragma once

#include <string>

#include "folder.hpp"
#include "network.hpp"
#include "samples.hpp"

enum class DataKind { digits, folder, idx, table, synthetic };

// What stands at a DATA argument, before it is brought to a model's shape.
struct DataSource {
  DataKind kind = DataKind::synthetic;
  std::string name;
  Samples samples;            // idx, table
  LabelledPictures pictures;  // folder
  std::size_t digits = 0;     // how many are drawn
  std::uint64_t seed = 0;     // of the drawings
  nnlite::Dims shape;         // of a sample; rank 0 where the model decides

  std::vector<std::string> label_names() const {
    return kind == DataKind::folder ? pictures.label_names : samples.label_names;
  }
};

// `part` is "train" or "t10k", which matters for IDX and digits alone.
DataSource open_data(const std::string& data, const std::string& part);

// Does the data come in two parts: are there t10k-* files beside the training files?
bool has_test_part(const std::string& data);

// The shape of a sample, for an architecture that takes the data's: of a folder of pictures the one size
// they all have.
nnlite::Dims data_shape(const DataSource& source);

// How samples are brought to a model.
struct Reading {
  nnlite::Pool* pool = nullptr;  // absent: one thread; the samples do not depend on it
  bool as_pictures = false;      // IDX digits go through the digit front end too, as if they were files
  bool no_blanks = false;        // a file on which the digit front end sees nothing cannot be read
};

// The samples as the model wants them: its input shape, its preprocessing, labels by the names it knows. IDX
// digits of the input's size are taken as they are by the digit kind, for that is what it makes of pictures.
// Pictures that cannot be read are reported line by line and end in a Failure.
Samples samples_for(const nnlite::Model& model, DataSource&& source, std::uint64_t seed,
                    const Reading& reading = {});

// Up to `count` pictures of no digit (letters, symbols, two digits, noise): samples without a class. What is
// blank to the digit kind is left out.
Samples others_for(const nnlite::Model& model, std::size_t count, std::uint64_t seed, const Reading& reading);

// What IDX digits of these samples become as pictures (Reading::as_pictures).
Samples as_pictures(const nnlite::Model& model, const Samples& samples, const Reading& reading);

// Puts more samples of the same shape and labels behind the others.
void append(Samples& to, const Samples& more);

// How samples answer to a model's output.
enum class Target {
  classes,
  yes_no,
  dense
};  // class index; one output for no and yes; values of output shape
Target target_of(const nnlite::Model& model);

// The loss that fits the output: cross-entropy for classes (NLL after log-softmax), else binary
// cross-entropy.
nnlite::AnyOp loss_for(const nnlite::Model& model);

// Writes sample i as the model's input / as its target where that is not an index.
void put_input(const Samples& samples, std::size_t i, float* to);
void put_target(const Samples& samples, std::size_t i, float* to);

// Moves a random share, drawn from the seed, into the second set.
Samples split(Samples& samples, double fraction, std::uint64_t seed);

// The samples of these numbers, in this order.
Samples chosen(const Samples& samples, const std::vector<std::size_t>& which);
