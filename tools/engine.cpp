// The one place that compiles the engine.
#define NNLITE_IMPLEMENTATION
#include "nnlite.hpp"
