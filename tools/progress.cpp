#include "progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Progress::Progress() : terminal_(isatty(STDERR_FILENO) != 0) {}

void Progress::begin(const std::string& title, std::size_t total) {
  if (!terminal_ && total >= 1000) fmt::print(stderr, "{}: {}\n", title, total);
}

void Progress::show(const std::string& title, std::size_t done, std::size_t total, const std::string& note) {
  if (!terminal_ || (now() - last_ < 0.1 && done < total)) return;
  last_ = now();
  struct winsize window;
  const std::size_t columns =
      ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0 ? window.ws_col : 80;
  const std::size_t width = 30, full = total ? width * done / total : width;
  std::string line = fmt::format("{} [{}{}] {:3} %  {}", title, std::string(full, '#'),
                                 std::string(width - full, '-'), total ? 100 * done / total : 100, note);
  line.resize(std::min(line.size(), columns - 1));
  std::fputs(("\r" + line + "\x1b[K").c_str(), stderr);
  std::fflush(stderr);
  shown_ = true;
}

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}
