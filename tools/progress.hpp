// A progress bar on stderr where that is a terminal; elsewhere a line when long work begins.
#pragma once

#include <cstddef>
#include <string>

class Progress {
 public:
  Progress();
  ~Progress() { clear(); }

  // Elsewhere than on a terminal: "<title>: <total>", where that is at least 1,000.
  void begin(const std::string& title, std::size_t total);
  // Draws "<title> [#####-----]  47 %  <note>", at most ten times a second.
  void show(const std::string& title, std::size_t done, std::size_t total, const std::string& note);
  // Wipes the bar, so that a line can be printed in its place.
  void clear();

 private:
  bool terminal_ = false;
  bool shown_ = false;
  double last_ = -1;
};

// Seconds on a steady clock.
double now();
