#include "strokes.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace {

// The points that the pen passes, "x,y" in a box 100 high, y down; "!" makes a sharp corner, "/" lifts the
// pen.
struct Shape {
  const char* name;
  Hands hands;
  const char* points;
};

constexpr Hands training = Hands::training, reserved = Hands::reserved;

const Shape shapes[] = {
    // oval, narrow, round, with a curl, open at the top, slashed, leaning, square, clockwise, with ears
    {"0", training, "30,0 8,18 2,50 10,84 30,100 50,84 58,50 50,16 34,1 26,2"},
    {"0", training, "32,2 14,14 8,50 16,88 30,100 44,86 50,50 42,12 26,1"},
    {"0", training, "40,4 14,10 0,38 4,72 28,98 58,88 72,56 64,20 36,3"},
    {"0", training, "42,16 30,3 12,16 3,50 12,86 32,100 52,84 57,50 48,14 32,4 22,14 34,22 48,16"},
    {"0", training, "22,4 6,24 2,56 14,90 34,99 54,80 58,44 50,16 38,3"},
    {"0", training, "30,0 8,18 2,50 10,84 30,100 50,84 58,50 50,16 28,1 / 54,10 8,90"},
    {"0", training, "44,3 18,14 4,50 6,86 22,99 44,82 58,46 56,14 40,3"},
    {"0", training, "14,4 4,24 4,76 16,98 44,98 56,76 56,22 44,3 10,5"},
    {"0", training, "12,22 30,2 52,18 58,52 48,88 28,100 8,82 2,50 10,22 26,6"},
    {"0", training, "50,0 22,8 4,44 10,84 30,100 52,80 56,42 42,12 20,4"},
    // lying, leaning back, like a pot
    {"0", training, "50,8 14,16 0,50 18,88 60,96 98,74 104,40 80,12 44,6"},
    {"0", training, "60,2 20,20 0,60 22,96 70,88 100,44 88,10 54,0"},
    {"0", training, "6,6 0,60 20,98 50,88 60,40 40,10 16,20"},
    {"0", reserved, "36,0 10,22 0,60 12,92 32,100 54,86 60,54 52,20 30,2 22,6"},
    {"0", reserved, "30,0! 6,36 8,76 30,100 52,76 54,38 30,0!"},
    {"0", reserved, "58,14 40,2 14,14 2,46 10,82 36,98 62,78 66,40 54,10 42,14 48,26 62,20"},
    {"0", reserved, "30,2 6,24 4,70 28,100 / 26,1 50,14 58,60 44,92 24,99"},
    // a stick, leaning, with a flag, with a foot, with both
    {"1", training, "10,0 8,50 7,100"},
    {"1", training, "26,0 14,50 0,100"},
    {"1", training, "0,28 24,0! 24,100"},
    {"1", training, "4,24 26,0! 26,100 / 4,100 48,100"},
    {"1", training, "2,22 14,14 24,0! 22,50 20,100"},
    {"1", training, "0,46 32,0! 34,100"},
    {"1", training, "8,26 34,2! 24,50 14,100"},
    {"1", training, "16,0 16,100 / 0,100 34,99"},
    {"1", training, "6,0 12,36 12,66 4,100"},
    {"1", training, "0,20 18,0! 20,100 / 8,99 34,101"},
    // leaning far, leaning back, with a hook
    {"1", training, "54,0 26,50 0,100"},
    {"1", training, "2,4 10,40 14,100"},
    {"1", training, "8,16 22,2 30,0 18,60 0,84! 40,88"},
    {"1", reserved, "0,40 12,28 30,0! 29,100 / 8,100 52,98"},
    {"1", reserved, "14,0 18,40 16,100"},
    {"1", reserved, "4,30 28,4! 26,50 28,100"},
    {"1", reserved, "30,0 18,48 6,92 12,100"},
    // arc and base, with a loop, like a z, like a swan, a long base, wide, narrow, curled, leaning
    {"2", training, "4,24 14,6 32,0 50,10 52,30 38,56 4,98! 56,98"},
    {"2", training, "4,22 18,4 38,2 52,18 46,44 22,74 6,94 2,84 14,78 32,90 58,96"},
    {"2", training, "4,12 20,3 40,4 46,16 4,98! 54,96"},
    {"2", training, "6,28 10,8 30,0 50,12 48,38 28,70 6,96! 20,90 40,100 60,92"},
    {"2", training, "8,18 24,2 42,12 42,36 24,66 2,96! 66,98"},
    {"2", training, "2,30 8,8 34,0 60,12 58,38 30,64 4,94! 62,96"},
    {"2", training, "6,20 18,2 32,4 38,22 30,50 4,100! 42,98"},
    {"2", training, "8,26 16,6 36,0 50,16 46,40 26,70 10,92 2,84 10,74 24,82 40,96 60,90"},
    {"2", training, "14,22 8,12 22,0 44,6 50,26 34,58 6,94! 54,100"},
    {"2", training, "2,18 20,0 44,4 48,28 30,58 0,90! 26,92 58,102"},
    // large loops, a falling base
    {"2", training, "8,22 24,4 44,10 50,34 36,64 14,92 2,86 8,70 26,74 44,92 62,96"},
    {"2", training, "4,18 24,0 48,10 52,40 36,76 14,96 0,84 12,66 34,76 50,94 66,92"},
    {"2", training, "2,20 22,2 46,8 46,40 26,80 8,88 8,74 24,72 46,92 70,86"},
    {"2", training, "10,24 20,2 38,4 42,30 30,66 14,94 4,90 10,78 24,84 46,100"},
    {"2", training, "6,16 30,2 46,14 36,40 4,78! 40,84 64,98"},
    {"2", training, "14,30 10,10 34,0 56,14 52,44 36,72 10,98 -4,86 6,68 32,74 54,96 72,90"},
    {"2", reserved, "10,32 8,12 28,0 48,8 54,26 42,50 16,76 4,97! 30,95 58,99"},
    {"2", reserved, "2,16 22,0 44,8 46,30 30,60 12,88 4,98 0,90 12,84 34,96 62,100"},
    {"2", reserved, "4,14 26,0 48,8 50,24 44,36 2,92! 54,92"},
    {"2", reserved, "8,24 12,6 28,0 40,10 40,34 24,70 6,98! 18,92 34,97 50,90"},
    // pinched, with a loop, flat above, deep, wide, heavy below, heavy above, without a pinch, narrow, curled
    {"3", training, "6,12 24,0 46,8 46,32 24,46! 50,56 54,80 32,100 4,90"},
    {"3", training, "8,10 28,0 48,14 42,36 24,46 18,50 28,50 50,62 52,86 28,100 2,90"},
    {"3", training, "4,2 50,2! 24,40! 48,50 56,76 34,100 2,92"},
    {"3", training, "2,16 20,0 44,6 44,30 16,46! 52,54 56,84 26,100 2,84"},
    {"3", training, "4,20 14,4 40,0 60,18 48,42 28,48! 58,56 64,82 34,102 0,90"},
    {"3", training, "12,10 26,0 42,10 38,28 22,36! 52,44 60,72 40,98 6,96"},
    {"3", training, "2,12 24,0 52,10 54,38 26,54! 46,60 48,84 28,100 6,92"},
    {"3", training, "8,14 26,0 46,12 42,36 28,47 46,60 50,84 28,100 6,92"},
    {"3", training, "6,8 20,0 36,10 34,34 18,46! 38,56 40,84 20,100 2,92"},
    {"3", training, "10,22 6,8 26,0 48,12 42,38 22,46! 50,56 54,84 30,100 6,92 8,80"},
    // leaning, wide above
    {"3", training, "12,4 40,0 44,20 24,42! 44,52 40,84 0,98"},
    {"3", training, "10,8 50,2 56,18 26,44! 52,52 46,84 2,94 -4,84"},
    {"3", reserved, "4,6 30,0 48,18 38,42 20,48! 44,54 52,74 40,98 4,98"},
    {"3", reserved, "6,0 48,4! 22,38! 46,46 54,70 42,96 10,96"},
    {"3", reserved, "4,14 22,0 46,8 48,32 26,46 16,46 20,40 34,48 54,66 46,96 16,102 0,88"},
    {"3", reserved, "0,8 22,2 40,10 44,26 30,44! 44,48 52,66 48,88 26,100 2,96"},
    // open, closed, open with a long leg, closed in two strokes, like a u, like lightning, with a loop, wide
    {"4", training, "10,2 4,58! 60,58 / 48,20 46,100"},
    {"4", training, "44,100 44,0! 2,64! 62,64"},
    {"4", training, "12,0 6,50! 56,46 / 50,4 42,100"},
    {"4", training, "38,0 4,60! 64,58 / 42,36 38,100"},
    {"4", training, "4,2 2,38 18,54 50,46 / 52,2 50,50 46,100"},
    {"4", training, "20,0 2,54! 50,54 / 36,30 26,100"},
    {"4", training, "14,2 4,48 16,58 58,54 / 50,8 45,60 40,100"},
    {"4", training, "18,2 0,62! 72,60 / 54,30 52,102"},
    {"4", training, "34,100 36,0! 2,70! 48,70"},
    {"4", training, "46,8 22,36 2,64! 62,62 / 46,6 44,100"},
    // like a y, in one stroke, round, closed
    {"4", training, "6,0 4,34 20,48 44,40 / 54,4 40,60 32,100"},
    {"4", training, "0,10 10,40 34,44 56,6! 36,100"},
    {"4", training, "30,4 6,44 18,52 40,42 44,8! 34,100"},
    {"4", training, "44,2 12,36 8,50! 50,46 / 44,4 36,100"},
    {"4", reserved, "6,4 8,48! 52,50 / 48,0 50,100"},
    {"4", reserved, "48,98 50,2! 0,60! 70,64"},
    {"4", reserved, "22,0 4,58! 62,52 / 46,22 38,100"},
    {"4", reserved, "8,6 0,42 12,54 46,48 / 50,6 44,60 46,102"},
    // in one stroke, the top added, like an s, angular, a long top, a big belly, a small one, a loose top
    {"5", training, "50,2 12,2! 8,42! 30,36 52,52 50,82 26,100 2,90"},
    {"5", training, "12,4 10,44! 30,38 52,54 50,84 26,100 4,92 / 12,4 54,0"},
    {"5", training, "50,4 24,2 10,16 14,40 40,52 52,74 38,98 6,96"},
    {"5", training, "48,0 8,0! 4,46! 46,46 54,72 40,100 2,98"},
    {"5", training, "14,2 8,44! 28,38 48,54 46,84 22,100 0,92 / 14,3 66,2"},
    {"5", training, "46,2 14,4! 8,38! 36,30 60,52 56,86 26,102 2,86"},
    {"5", training, "44,0 12,2! 10,56! 32,50 46,66 40,92 20,100 2,94"},
    {"5", training, "10,10 8,46! 30,40 50,56 46,86 22,100 2,92 / 16,4 52,-1"},
    {"5", training, "38,0 10,2! 6,44! 22,38 38,54 36,84 18,100 0,92"},
    {"5", training, "56,2 22,4! 12,44! 34,38 50,56 42,88 16,100 2,88 8,80"},
    // with a flag, closed below, leaning
    {"5", training, "84,0 36,10! 22,42! 46,50 54,76 30,100 0,92"},
    {"5", training, "90,4 40,6! 20,44 44,52 50,76 26,98 4,86"},
    {"5", training, "56,2 16,8! 8,48! 40,46 50,72 30,98 8,86 16,68"},
    {"5", training, "70,0 24,14! 20,40 50,60 44,84 4,98"},
    {"5", reserved, "54,4 34,0 14,4! 6,46! 26,38 50,48 54,78 36,98 4,94"},
    {"5", reserved, "8,6 6,40! 28,34 50,48 54,76 34,100 4,96 / 8,6 30,4 50,6"},
    {"5", reserved, "52,0 20,4! 8,30 22,46 46,58 50,84 28,100 0,94"},
    {"5", reserved, "40,2 4,0! 8,50! 34,44 52,62 44,92 18,100 -2,88"},
    // curved, a straight stem, a big loop, a small one, curled, narrow, leaning, crossing, like a b
    {"6", training, "44,2 20,20 4,56 10,88 32,100 52,84 48,62 28,54 8,70"},
    {"6", training, "30,0 10,46 2,74 16,98 40,98 52,78 40,58 18,60 4,76"},
    {"6", training, "50,4 22,14 4,46 6,84 30,100 56,88 56,58 32,44 8,60"},
    {"6", training, "40,0 14,28 2,68 10,94 28,100 42,88 38,72 22,70 6,84"},
    {"6", training, "50,14 42,2 20,14 4,52 10,88 34,100 54,82 48,58 26,54 6,72"},
    {"6", training, "24,0 8,36 4,76 18,100 38,92 42,70 28,58 8,72"},
    {"6", training, "60,0 30,24 8,58 6,88 26,100 48,86 46,66 28,60 10,76"},
    {"6", training, "42,0 16,28 4,66 14,96 38,98 52,78 40,58 16,60 -2,72"},
    {"6", training, "12,0 3,50 6,84 26,100 48,88 48,62 28,52 6,66"},
    {"6", training, "46,6 28,2 10,22 2,60 14,94 38,98 50,78 38,62 20,66 10,78"},
    // with the loop inside, wide, like a pot
    {"6", training, "30,0 6,44 10,92 40,98 58,70 40,54 24,72 20,92"},
    {"6", training, "10,0 0,60 20,98 56,92 66,62 44,50 24,70 26,94"},
    {"6", training, "6,4 0,60 20,100 54,84 60,52 44,44 26,60 22,88"},
    {"6", reserved, "36,0 12,36 0,70 12,98 38,100 50,80 36,62 14,66 4,80"},
    {"6", reserved, "56,8 36,2 14,22 4,58 8,88 30,100 50,86 50,64 30,52 10,64"},
    {"6", reserved, "18,0 4,44 4,80 22,100 44,92 48,70 32,56 8,66"},
    {"6", reserved, "48,0 22,28 6,62 10,92 32,100 54,88 54,68 36,60 14,72 8,80"},
    // plain, crossed, with a serif, a curved leg, crossed with a serif, wavy, a straight leg, leaning, narrow
    {"7", training, "4,4 54,4! 20,100"},
    {"7", training, "4,4 56,2! 20,100 / 18,50 56,48"},
    {"7", training, "6,16 6,4! 56,4! 24,100"},
    {"7", training, "2,6 50,4! 34,36 22,100"},
    {"7", training, "4,14 8,2! 56,4! 30,48 18,100 / 16,52 54,50"},
    {"7", training, "2,10 14,2 34,8 56,2! 32,50 24,100"},
    {"7", training, "4,2 48,2! 40,100"},
    {"7", training, "0,8 64,0! 10,102"},
    {"7", training, "4,4 36,4! 18,100"},
    {"7", training, "2,6 30,2 54,4! 36,40 22,100 / 18,46 52,54"},
    // hooked, round, like a tick, crossed low, with a serif
    {"7", training, "4,26 6,8 30,2 52,8! 44,50 40,100"},
    {"7", training, "2,28 14,4 42,2 52,16 42,56 34,100"},
    {"7", training, "0,12 20,24 50,2! 30,60 20,100"},
    {"7", training, "10,4 40,2! 36,50 32,100 / 14,56 56,52"},
    {"7", training, "2,24 4,6! 46,4! 20,58 14,100"},
    {"7", training, "0,20 20,4 48,8 46,30 22,64 14,100 / 4,62 52,54"},
    {"7", reserved, "2,2 52,6! 26,56 16,100 / 14,62 50,54"},
    {"7", reserved, "4,24 2,6! 54,2! 36,44 30,100"},
    {"7", reserved, "0,4 26,8 56,0! 18,100"},
    {"7", reserved, "6,0 60,4! 30,100 / 24,44 60,44"},
    // from an s, two circles, leaning, narrow, wide, a small head, a big one, open, from the middle
    {"8", training, "48,12 30,0 10,12 14,34 42,58 52,80 30,100 6,84 14,58 42,36 50,14"},
    {"8", training, "30,0 10,12 12,36 30,46 48,34 48,10 30,0 / 30,46 6,60 6,88 30,100 54,88 52,60 30,46"},
    {"8", training, "54,10 36,0 18,12 22,36 42,62 40,90 18,100 2,84 14,58 44,36 56,12"},
    {"8", training, "36,10 22,0 8,12 12,36 32,60 36,86 20,100 4,86 10,60 32,36 38,14"},
    {"8", training, "56,16 34,2 8,14 12,36 46,56 62,80 36,100 4,86 12,60 50,38 58,16"},
    {"8", training, "42,14 28,4 18,14 20,32 44,52 56,78 32,100 4,82 14,54 40,32 42,14"},
    {"8", training, "52,14 30,0 4,18 14,44 38,62 44,84 28,100 12,86 18,64 46,42 54,16"},
    {"8", training, "44,16 28,2 8,16 16,38 44,62 48,88 26,100 4,86 14,60 40,38 50,10"},
    {"8", training, "28,48 8,32 12,6 32,0 50,14 44,36 28,48 8,62 4,88 28,100 52,90 50,64 28,48"},
    {"8", training, "46,16 28,0 10,16 46,82 28,100 8,84 46,16"},
    // open above, slender, leaning far
    {"8", training, "58,0 34,12 14,22 22,42 40,60 36,90 12,100 4,84 22,58 50,34 60,6"},
    {"8", training, "50,10 30,0 14,16 26,38 44,56 44,84 24,100 8,86 24,58 56,24 58,4"},
    {"8", training, "40,0 20,14 30,44 44,66 30,98 8,90 14,62 44,30 40,2"},
    {"8", training, "60,14 30,4 10,22 40,48 56,70 40,96 12,90 16,66 44,40 64,12"},
    {"8", reserved, "46,8 26,0 8,14 18,36 44,60 46,88 24,100 2,88 12,62 42,38 48,10"},
    {"8", reserved, "28,2 12,14 16,36 32,42 46,32 44,10 28,2 / 30,42 4,58 4,90 30,101 58,88 54,56 30,42"},
    {"8", reserved, "54,14 42,0 22,10 22,34 44,60 38,92 14,98 2,80 20,56 50,34 56,10"},
    {"8", reserved, "30,46 50,30 46,6 26,0 8,14 12,36 30,46 52,62 54,88 28,100 4,86 8,62 30,46"},
    // a straight stem, a curved tail, upright, leaning, a big loop, a small one, hooked, open, narrow
    {"9", training, "48,16 30,0 8,12 6,36 26,48 46,34 50,8! 46,100"},
    {"9", training, "50,14 30,0 8,16 10,42 32,50 50,32 52,10 52,50 40,88 12,100"},
    {"9", training, "46,6 24,2 4,22 8,46 28,52 46,36 48,4! 48,100"},
    {"9", training, "54,14 38,0 16,10 10,36 28,48 48,32 56,8! 24,100"},
    {"9", training, "56,20 34,0 6,14 2,46 26,62 52,46 58,16 54,60 44,100"},
    {"9", training, "42,14 28,2 14,12 14,30 28,36 40,26 44,8! 40,100"},
    {"9", training, "50,12 28,0 6,18 10,42 32,48 50,28 50,10! 50,70 36,100 8,92"},
    {"9", training, "46,4 26,2 6,20 10,44 32,48 50,30 / 52,0 46,100"},
    {"9", training, "38,14 24,0 8,12 8,38 22,46 36,32 40,8! 36,100"},
    {"9", training, "52,30 34,46 12,40 8,16 28,0 50,12 52,44 36,82 10,100"},
    // like a 4, with a bent tail, leaning
    {"9", training, "40,2 10,20 6,46 30,44 46,10! 44,60 40,100"},
    {"9", training, "44,10 20,4 4,26 22,44 44,24 50,8 46,60 20,98 0,90"},
    {"9", training, "40,6 16,10 2,34 16,46 38,26 44,8 32,60 22,100"},
    {"9", reserved, "46,10 22,0 4,20 14,44 36,42 48,20 48,6! 42,54 38,100"},
    {"9", reserved, "56,18 40,2 14,6 4,30 20,50 44,44 56,22 52,56 34,92 6,98"},
    {"9", reserved, "44,8 22,4 6,22 12,42 30,46 44,30 46,4! 30,100"},
    {"9", reserved, "50,32 30,50 8,40 8,14 30,0 52,14 54,50 46,100"},
    // no digits
    {"F", training, "8,100 8,0! 54,0 / 8,48 44,46"},
    {"F", training, "54,2 10,4! 6,100 / 2,52 46,50"},
    {"M", training, "0,100 8,0! 38,66! 68,0! 76,100"},
    {"M", training, "4,100 8,24 10,6! 14,20 28,12 38,30 38,100! 40,28 56,10 68,30 70,100"},
    {"N", training, "4,100 6,0! 52,100! 56,0"},
    {"N", training, "4,100 6,4 / 6,4 56,98 / 56,98 58,2"},
    {"P", training, "8,100 8,0! 44,4 54,24 42,46 10,50"},
    {"P", training, "12,98 10,4 / 2,10 30,0 56,12 52,36 12,56"},
    {"R", training, "8,100 8,0! 46,8 50,30 10,50! 56,100"},
    {"R", training, "10,0 8,100 / 2,8 34,0 54,20 36,46 12,48! 30,60 62,98"},
    {"T", training, "0,2 70,0 / 36,2 34,100"},
    {"T", training, "0,8 20,2 64,4 / 34,4 30,96 38,100"},
    {"U", training, "2,0 4,70 28,100 54,72 56,0"},
    {"U", training, "6,4 2,50 12,92 40,98 60,70 62,0! 64,100"},
    {"V", training, "0,0 34,100! 68,0"},
    {"V", training, "2,6 30,98! 44,50 74,2"},
    {"W", training, "0,0 18,100! 38,36! 58,100! 78,0"},
    {"W", training, "0,4 10,80 22,98 40,40! 48,86 60,98 76,60 80,2"},
    {"Y", training, "0,0 32,46 / 66,0 32,46 34,100"},
    {"Y", training, "2,4 14,36 36,44 / 62,0 16,100"},
    {"arrow", training, "0,50 110,50 / 76,18 110,50! 78,84"},
    {"arrow", training, "50,100 50,0 / 20,32 50,0! 80,34"},
    {"diamond", training, "46,0! 92,50! 46,100! 0,50! 46,0!"},
    {"diamond", training, "30,2! 62,46! 36,100! 0,54! 32,0"},
    {"flag", training, "10,100 10,0! 84,22! 12,46"},
    {"flag", training, "4,4 8,100 / 6,4 80,2! 74,44! 8,46"},
    {"hash", training, "30,0 20,100 / 74,0 64,100 / 0,34 96,32 / 0,70 94,68"},
    {"heart", training, "50,24! 36,2 10,4 2,30 20,64 50,100! 80,66 98,30 88,4 64,2 50,24!"},
    {"heart", training, "46,28! 26,4 4,16 6,46 48,98! 92,44 90,12 68,2 46,28!"},
    {"house", training, "10,100! 8,44! 50,0! 92,44! 90,98! 8,100!"},
    {"house", training, "14,46 12,98! 86,100! 84,44 / 0,52 48,2! 100,50"},
    {"lambda", training, "10,2 22,4 64,100 / 36,42 0,100"},
    {"lambda", training, "0,0 16,6 34,50 60,96 / 34,50 4,98"},
    {"omega", training, "0,98 26,96! 4,60 8,20 40,0 74,20 78,60 56,96! 84,98"},
    {"omega", training, "2,10 0,70 18,98 36,80 38,30 / 38,80 56,98 76,70 72,8"},
    {"plus", training, "46,4 46,96 / 0,50 92,50"},
    {"plus", training, "40,0 46,100 / 2,56 90,46"},
    {"sigma", training, "58,12 56,2! 4,0! 38,48! 2,98! 58,100! 60,88"},
    {"sigma", training, "54,4 6,2! 30,50! 0,96! 60,96"},
    {"square", training, "4,2! 96,4! 94,98! 2,96! 4,2!"},
    {"square", training, "6,0 2,98! 70,96! 72,4! 0,2"},
    {"wave", training, "0,60 20,30 44,60 68,30 92,60 116,30"},
    {"zigzag", training, "0,60 18,10! 40,92! 60,8! 80,90! 100,30"},
    {"zigzag", training, "40,0 4,30! 56,42! 6,74! 54,100"},
    {"A", reserved, "0,100 34,0! 70,100 / 14,62 58,60"},
    {"A", reserved, "4,100 28,4 40,4 66,100 / 8,66 60,64"},
    {"B", reserved, "8,0 8,100 / 2,2 42,4 46,38 12,46! 56,56 54,94 2,98"},
    {"B", reserved, "10,98 8,2! 40,4 50,24 36,44 12,48! 46,52 60,74 46,96 6,99"},
    {"C", reserved, "58,16 34,0 8,22 2,56 14,90 38,100 60,84"},
    {"C", reserved, "52,12 58,4 34,2 6,28 4,74 30,100 64,88"},
    {"E", reserved, "52,2 8,2! 8,98! 54,98 / 8,48 44,48"},
    {"E", reserved, "54,10 34,0 12,14 20,42 40,46! 8,58 6,86 30,100 58,88"},
    {"H", reserved, "4,0 4,100 / 58,0 58,100 / 4,50 58,48"},
    {"H", reserved, "8,2 2,98 / 60,0 54,100 / 0,54 62,44"},
    {"K", reserved, "6,0 6,100 / 54,2 8,56! 58,100"},
    {"K", reserved, "10,0 4,98 / 56,4 12,50 / 22,42 60,98"},
    {"X", reserved, "0,0 62,100 / 60,0 2,100"},
    {"X", reserved, "4,2 20,30 50,84 64,98 / 64,2 0,98"},
    {"question", reserved, "4,24 14,4 36,0 54,16 46,40 28,54 28,74 / 28,96 30,100"},
    {"question", reserved, "0,18 20,0 46,8 48,30 30,44 24,70 / 23,94 26,98"},
    {"star", reserved, "18,100 50,0! 84,100! 0,36! 100,36! 18,100!"},
    {"star", reserved, "50,0! 62,36! 100,38! 70,60! 82,98! 50,76! 18,98! 30,60! 0,38! 38,36! 50,0!"},
    {"triangle", reserved, "50,0! 100,96! 0,98! 50,0!"},
    {"triangle", reserved, "52,4 4,96! 96,100! 46,0"},
};

struct Knot {
  Point at;
  bool corner = false;
};

std::vector<std::vector<Knot>> parse(const char* text) {
  std::vector<std::vector<Knot>> lines(1);
  for (const char* p = text; *p;) {
    if (*p == ' ' || *p == ',') {
      ++p;
    } else if (*p == '/') {
      lines.emplace_back();
      ++p;
    } else {
      Knot knot;
      char* end = nullptr;
      knot.at.x = static_cast<float>(std::strtol(p, &end, 10)) / 100;
      knot.at.y = static_cast<float>(std::strtol(end + 1, &end, 10)) / 100;
      p = end;
      knot.corner = *p == '!';
      p += knot.corner;
      lines.back().push_back(knot);
    }
  }
  return lines;
}

Point operator+(Point a, Point b) { return {a.x + b.x, a.y + b.y}; }
Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
Point operator*(float s, Point a) { return {s * a.x, s * a.y}; }
float length(Point a) { return std::sqrt(a.x * a.x + a.y * a.y); }

// One piece of a centripetal Catmull-Rom spline, from b to c (Yuksel, Schaefer, Keyser 2011): it neither
// overshoots nor loops between points at uneven distances.
void add_curve(Stroke& to, Point a, Point b, Point c, Point d) {
  const float t0 = std::sqrt(length(b - a)) + 1e-4f, t1 = std::sqrt(length(c - b)) + 1e-4f,
              t2 = std::sqrt(length(d - c)) + 1e-4f;
  const Point m = t1 * ((1 / t0) * (b - a) - (1 / (t0 + t1)) * (c - a) + (1 / t1) * (c - b));
  const Point n = t1 * ((1 / t1) * (c - b) - (1 / (t1 + t2)) * (d - b) + (1 / t2) * (d - c));
  const int pieces = 10;
  for (int i = 1; i <= pieces; ++i) {
    const float u = static_cast<float>(i) / pieces, v = 1 - u;  // a cubic in Hermite form
    to.push_back(v * v * (1 + 2 * u) * b + u * u * (1 + 2 * v) * c + u * v * (v * m - u * n));
  }
}

Stroke smooth(const std::vector<Knot>& knots) {
  Stroke stroke = {knots[0].at};
  const std::size_t last = knots.size() - 1;
  for (std::size_t i = 0; i < last; ++i) {
    const Point b = knots[i].at, c = knots[i + 1].at;
    const Point a = i == 0 || knots[i].corner ? b : knots[i - 1].at;
    const Point d = i + 1 == last || knots[i + 1].corner ? c : knots[i + 2].at;
    add_curve(stroke, a, b, c, d);
  }
  return stroke;
}

// Sine of a small angle, by its series: the C library's differ in the last digit.
float sine(float a) { return a * (1 - a * a / 6 * (1 - a * a / 20 * (1 - a * a / 42))); }

// Everything that one hand does to all of its strokes.
struct Habit {
  float shake, aspect, slant, taper, waist, bow, sag, sine, cosine;

  explicit Habit(Random& random)
      : shake(random.between(0.006f, 0.04f)),
        aspect(1 + 0.17f * random.normal()),
        slant(0.08f + 0.21f * random.normal()),
        taper(0.12f * random.normal()),
        waist(0.10f * random.normal()),
        bow(0.05f * random.normal()),
        sag(0.04f * random.normal()) {
    const float angle = 0.11f * random.normal();
    sine = ::sine(angle);
    cosine = std::sqrt(1 - sine * sine);
    aspect = std::clamp(aspect, 0.65f, 1.4f);
  }

  // x and y about the middle of the shape.
  Point bent(Point p) const {
    const float x = aspect * p.x * (1 + taper * 2 * p.y) + bow * (4 * p.y * p.y - 0.5f) - slant * p.y;
    const float y = p.y + waist * (1 - 4 * p.y * p.y) * 0.5f + sag * (4 * p.x * p.x - 0.5f);
    return {cosine * x - sine * y, sine * x + cosine * y};
  }
};

// To 0 in the middle and a height of 1, or a width of 1 where the shape is wider than high.
void centre(Strokes& strokes) {
  Point low{1e9f, 1e9f}, high{-1e9f, -1e9f};
  for (const Stroke& stroke : strokes)
    for (Point p : stroke) {
      low = {std::min(low.x, p.x), std::min(low.y, p.y)};
      high = {std::max(high.x, p.x), std::max(high.y, p.y)};
    }
  const Point middle = 0.5f * (low + high);
  const float scale = 1 / std::max({high.x - low.x, high.y - low.y, 0.01f});
  for (Stroke& stroke : strokes)
    for (Point& p : stroke) p = scale * (p - middle);
}

std::vector<std::string> names_of(Hands hands, bool digits) {
  std::vector<std::string> names;
  for (const Shape& shape : shapes) {
    const bool digit = shape.name[0] >= '0' && shape.name[0] <= '9';
    if (digit == digits && shape.hands == hands && (names.empty() || names.back() != shape.name))
      names.push_back(shape.name);
  }
  return names;
}

}  // namespace

const std::vector<std::string>& digit_names() {
  static const std::vector<std::string> names = names_of(Hands::training, true);
  return names;
}

const std::vector<std::string>& other_names(Hands hands) {
  static const std::vector<std::string> names[] = {names_of(Hands::training, false),
                                                   names_of(Hands::reserved, false)};
  return names[static_cast<std::size_t>(hands)];
}

std::vector<std::string> shapes_of(const std::string& name, Hands hands) {
  std::vector<std::string> found;
  for (const Shape& shape : shapes)
    if (shape.hands == hands && name == shape.name) found.push_back(shape.points);
  return found;
}

Strokes write(const std::string& name, Hands hands, Random& random) {
  const std::vector<std::string> choice = shapes_of(name, hands);
  const std::string& shape = choice[static_cast<std::size_t>(random.below(static_cast<int>(choice.size())))];
  const Habit habit(random);
  Strokes strokes;
  for (std::vector<Knot>& knots : parse(shape.c_str())) {
    for (Knot& knot : knots) {
      knot.at.x += habit.shake * random.normal();
      knot.at.y += habit.shake * random.normal();
      knot.corner = knot.corner && !random.chance(0.2f);  // sometimes a corner is cut
    }
    strokes.push_back(smooth(knots));
  }
  centre(strokes);
  for (Stroke& stroke : strokes)
    for (Point& p : stroke) p = habit.bent(p);
  centre(strokes);
  return strokes;
}
