// IDX, the format of MNIST: big-endian header, then unsigned bytes; gzipped or not.
#pragma once

#include <string>

#include "samples.hpp"

// Does the folder hold `<part>-images...` (part is "train" or "t10k")?
bool has_idx(const std::string& folder, const std::string& part);

// Reads `<part>-images-idx3-ubyte[.gz]` and `<part>-labels-idx1-ubyte[.gz]`. Every count is checked against
// what follows, and the two files against each other; a failure names file and offset or record.
Samples read_idx(const std::string& folder, const std::string& part);
