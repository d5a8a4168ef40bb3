// What a training run learns from: the data of the command line, put together.
#pragma once

#include <string>
#include <vector>

#include "data.hpp"

// Every DATA of the command line. Fails where they do not hold the same classes.
std::vector<DataSource> open_all(const std::vector<std::string>& data, const std::string& part);

// Their samples, one source after the other.
Samples samples_of_all(const nnlite::Model& model, std::vector<DataSource>&& sources, std::uint64_t seed,
                       const Reading& reading);

// "a --data b", for messages.
std::string joined(const std::vector<std::string>& data);

// Targets of classes as probabilities: 1 for the class; the same for all of them where there is none.
std::vector<float> soft_targets(const Samples& samples, int classes);

// A lesson: a handful of pictures in class folders, or pictures of some classes alone, for a model with a digit front
// end. The others would be forgotten: it is taught beside `replay_count` samples that the model knows.
const std::size_t handful = 500, replay_count = 2000;
bool is_lesson(const nnlite::Model& model, const std::vector<DataSource>& sources);
// For a model that reads digits: MNIST where it is found, else synthetic-digits.
bool reads_digits(const nnlite::Model& model);
std::string default_replay();
Samples replayed(const nnlite::Model& model, const std::string& replay, std::uint64_t seed,
                 const Reading& reading);

// How often a lesson is repeated, so that a class of it has about as many samples as one of the others.
std::size_t lesson_times(const Samples& lesson, const Samples& replay);

// Names of classes in a folder of pictures that the model does not know.
std::vector<std::string> new_classes(const nnlite::Model& model, const DataSource& source);

// The model with these classes after its own.
std::unique_ptr<Network> grown(const nnlite::Model& model, const std::vector<std::string>& classes,
                               std::uint64_t seed, const std::string& name);
