// Pictures that the project draws itself. Picture number `index` of a series depends on (seed, index) alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "paint.hpp"

// What "synthetic-digits" is made of.
const std::uint64_t training_seed = 1, test_seed = 2;
const std::uint64_t golden_seed = 240, composed_seed = 500;

// A digit, a letter or a symbol by its name, drawn with those hands, on a page whose longer side is between
// `smallest` and `largest` pixels.
Picture made_picture(const std::string& name, Hands hands, int smallest, int largest, Random random);

// Digit index % 10 of the training hands, 40 to 200 pixels.
Picture made_digit(std::uint64_t seed, std::size_t index);

// The same, side x side pixels.
Picture square_digit(std::uint64_t seed, std::size_t index, int side);

// No digit, in turn one of four kinds, 40 to 400 pixels.
const char* const other_kinds[4] = {"blank", "noise", "letter", "two"};
Picture made_other(Hands hands, std::uint64_t seed, std::size_t index);

// No digit, as training wants them: most are letters, symbols, and two of them in one place.
Picture training_other(std::uint64_t seed, std::size_t index);

// tests/golden/digits: digit index % 10 of the reserved hands, 40 to 1500 pixels.
const std::size_t golden_count = 240;
Picture golden_digit(std::size_t index);

// A digit of side x side pixels (0 no ink, 255 full) written on a page of 40 to 1500 pixels.
Picture composed_digit(const std::uint8_t* pixels, int side, std::size_t index);
