// Pictures of writing: ink on a page, in colours, with a texture, in uneven light, through a noisy camera.
#pragma once

#include <cstdint>
#include <vector>

#include "picture.hpp"
#include "random.hpp"
#include "strokes.hpp"

// How much ink lies on each pixel, 0 to 1.
struct Mask {
  int width = 0, height = 0;
  std::vector<float> ink;

  Mask(int w, int h) : width(w), height(h), ink(static_cast<std::size_t>(w) * static_cast<std::size_t>(h)) {}
};

// Where writing stands on a page, in pixels.
struct Place {
  Point centre;
  float size = 0;  // of the height of the writing
};

// What writes. Lengths are in units of the size of the writing.
struct Pen {
  float width = 0.08f;
  float swing = 0;  // how much the width changes along a stroke, 0 to 1
  float nib = 0;    // a broad nib: how much thinner across than along, 0 to 1
  Point direction;  // of the nib, length 1
  float tremor = 0;
  float softness = 1;  // pixels from no ink to full ink
};
Pen random_pen(Random& random);

// Lays strokes on the mask.
void draw(Mask& mask, const Strokes& strokes, const Place& place, const Pen& pen, Random& random);

// Lays a small picture (0 no ink, 255 full) on the mask, enlarged smoothly; place.size is that of its side.
void draw(Mask& mask, const std::uint8_t* pixels, int side, const Place& place);

// The colours, the light and the camera.
struct Look {
  float paper[3], ink[3], line[3];  // 0 to 255
  int texture = 0;                  // of those that the hands may have
  float opacity = 1, dryness = 0;   // of the ink; dry ink leaves holes
  float slope[2] = {0, 0};          // of the light, across and down
  float vignette = 0;
  float step = 1;                     // between the values that the camera tells apart
  float noise = 0, colour_noise = 0;  // of the camera, deviation in steps of 0 to 255
};
Look random_look(Random& random);

// Makes the picture: page, ink, light, noise. `unit` is the size of the writing in pixels; textures go by it.
Picture paint(const Mask& mask, Hands hands, const Look& look, float unit, Random& random);
