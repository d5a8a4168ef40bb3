// Counts what this program takes from the heap, malloc and operator new alike.
#pragma once

#include <cstdint>

// How many allocations there have been; -1 where they cannot be counted (sanitizers, other C libraries).
std::int64_t allocation_count();
