#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"
