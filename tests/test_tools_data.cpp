#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "csv.hpp"
#include "failure.hpp"
#include "file.hpp"
#include "folder.hpp"
#include "idx.hpp"
#include "picture.hpp"

namespace {

// A folder that goes away with the test.
struct Folder {
  std::string path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "nnlite_testXXXXXX").string();
    if (mkdtemp(name.data())) path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

template <class Action>
std::string failure_of(Action action) {
  try {
    action();
  } catch (const Failure& failure) { return one_line(failure); }
  return "";
}

std::string csv_failure(const std::string& text) {
  return failure_of([&] { parse_csv(text, "t.csv"); });
}

void write_idx(const Folder& folder, const std::string& part, char pictures, char labels) {
  std::string images = {0, 0, 8, 3, 0, 0, 0, pictures, 0, 0, 0, 2, 0, 0, 0, 2};
  images += std::string(static_cast<std::size_t>(pictures) * 4, 'x');
  std::string names = {0, 0, 8, 1, 0, 0, 0, labels};
  for (char i = 0; i < labels; ++i) names += i;
  write_file(folder / (part + "-images-idx3-ubyte"), images);
  write_file(folder / (part + "-labels-idx1-ubyte"), names);
}

}  // namespace

TEST_CASE("csv: features, labels and an optional heading") {
  for (const char* heading : {"", "a,b,class\n"}) {
    const Samples s = parse_csv(std::string(heading) + "1, 2.5,7\r\n-3e2,4,5\n\n0,0,7", "t.csv");
    CHECK(s.shape == std::vector<int>{2});
    CHECK(s.floats == std::vector<float>{1, 2.5f, -300, 4, 0, 0});
    CHECK(s.labels == std::vector<std::int32_t>{1, 0, 1});
    CHECK(s.label_names == std::vector<std::string>{"5", "7"});
  }
}

TEST_CASE("csv: holes, words, NaN and uneven rows are named by line and column") {
  CHECK(csv_failure("1,2,0\n1,,0\n") ==
        "a hole in the table: t.csv, line 2, column 2: fill it in or leave the row out");
  CHECK(csv_failure("1,2,0\n1,two,0\n") == "'two' is not a number: t.csv, line 2, column 2: give a number");
  CHECK(csv_failure("1,nan,0\n") == "'nan' is not a number: t.csv, line 1, column 2: give a number");
  CHECK(csv_failure("nan,nan,nan\n") == "'nan' is not a number: t.csv, line 1, column 1: give a number");
  CHECK(csv_failure("1,2,inf\n") == "'inf' is not a number: t.csv, line 1, column 3: give a number");
  CHECK(csv_failure("1,0x10,0\n") == "'0x10' is not a number: t.csv, line 1, column 2: give a number");
  CHECK(csv_failure("1,1e99,0\n") == "1e99 is too large: t.csv, line 1, column 2: give a smaller number");
  CHECK(csv_failure("1,2,0\n1,0\n") == "2 columns in place of 3: t.csv, line 2: make all rows as long");
  CHECK(csv_failure("1\n") == "a single column: t.csv, line 1: give features and, last, the label");
  CHECK(csv_failure("\n") == "a table without rows: t.csv: give rows of numbers, the last column the label");
}

TEST_CASE("idx: pictures and labels come together") {
  Folder folder;
  write_idx(folder, "train", 3, 3);
  CHECK(has_idx(folder.path, "train"));
  CHECK(!has_idx(folder.path, "t10k"));
  const Samples s = read_idx(folder.path, "train");
  CHECK(s.shape == std::vector<int>{2, 2, 1});
  CHECK(s.bytes.size() == 12);
  CHECK(s.labels == std::vector<std::int32_t>{0, 1, 2});
}

TEST_CASE("idx: wrong counts are refused") {
  Folder folder;
  write_idx(folder, "train", 3, 2);
  CHECK(failure_of([&] { read_idx(folder.path, "train"); }).find("2 labels for 3 pictures") == 0);
  write_file(folder / "train-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\0\x03\0\0", 10));
  CHECK(failure_of([&] {
          read_idx(folder.path, "train");
        }).find("the header says 3 records, 3 bytes; 2 bytes follow: ") == 0);
  write_file(folder / "train-labels-idx1-ubyte", "text");
  CHECK(failure_of([&] { read_idx(folder.path, "train"); }).find("not an IDX file: ") == 0);
  CHECK(failure_of([&] { read_idx(folder.path, "t10k"); }).find("no such file: ") == 0);
}

TEST_CASE("folder: class folders in the order of their names") {
  Folder folder;
  for (const char* name : {"b", "a", "a/deep"}) mkdir((folder / name).c_str(), 0777);
  const Bytes png = encode_png(Picture{1, 1, 1, {7}});
  for (const char* name : {"b/2.png", "b/1.PNG", "a/deep/3.png", "b/notes.txt"})
    write_file(folder / name, png.data(), png.size());
  const LabelledPictures found = list_class_folders(folder.path);
  CHECK(found.label_names == std::vector<std::string>{"a", "b"});
  CHECK(found.labels == std::vector<std::int32_t>{0, 1, 1});
  CHECK(found.paths[1] == folder / "b/1.PNG");
  mkdir((folder / "c").c_str(), 0777);
  CHECK(failure_of([&] { list_class_folders(folder.path); }).find("no picture in the folder: ") == 0);
}

TEST_CASE("file: writing replaces all at once and leaves nothing behind when it fails") {
  Folder folder;
  write_file(folder / "a", "one");
  write_file(folder / "a", "two");
  CHECK(read_file(folder / "a", "a text") == Bytes{'t', 'w', 'o'});
  CHECK(failure_of([&] { write_file(folder / "no/a", "x"); }).find("cannot write (no such folder): ") == 0);
  CHECK(failure_of([&] { write_file(folder.path, "x"); }).find("cannot write (it is a folder): ") == 0);
  CHECK(failure_of([&] { write_file("/dev/null", "x"); }).find("cannot write (not a regular file): ") == 0);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path)) files += entry.exists();
  CHECK(files == 1);
}

TEST_CASE("file: missing, folder and empty are told apart") {
  Folder folder;
  write_file(folder / "empty", "");
  CHECK(failure_of([&] { read_file(folder / "x", "a picture"); }).find("no such file: ") == 0);
  CHECK(failure_of([&] { read_file(folder.path, "a picture"); }).find("a folder, not a picture: ") == 0);
  CHECK(failure_of([&] { read_file(folder / "empty", "a picture"); }).find("an empty file, not a picture: ") ==
        0);
}
