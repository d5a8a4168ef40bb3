// A bound on what stb_image may take: a small file can ask for any amount.
#pragma once

#include <cstddef>

// The largest single piece that decoding on this thread may take.
extern thread_local std::size_t stb_largest_piece;
