// DRIVER LIBRARY: calls the kernels of a library for tests, in a process that an emulator runs (emulator.py).
//
// Reads calls from stdin, each a list of the function's name and its arguments. Answers each on stdout with the result
// and what is then in the memory that the arguments point to.

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <list>
#include <utility>
#include <vector>

namespace {

enum Kind : int64_t { NUMBER, MEMORY, LIST };

// Blocks that arguments point to: bytes of MEMORY, which are answered, and pointers of each LIST.
struct Blocks {
  std::list<std::vector<char>> bytes;
  std::list<std::vector<int64_t>> lists;
};

// Read an argument: its kind and a number, which is the value, or how many bytes or arguments follow.
bool read_argument(Blocks& blocks, int64_t& value) {
  int64_t head[2];
  if (fread(head, sizeof head, 1, stdin) != 1) return false;
  value = head[1];
  if (head[0] == MEMORY) {
    std::vector<char>& bytes = blocks.bytes.emplace_back(head[1]);
    value = reinterpret_cast<int64_t>(bytes.data());
    return fread(bytes.data(), 1, bytes.size(), stdin) == bytes.size();
  }
  if (head[0] == LIST) {
    std::vector<int64_t>& list = blocks.lists.emplace_back(head[1]);
    value = reinterpret_cast<int64_t>(list.data());
    for (int64_t& item : list)
      if (!read_argument(blocks, item)) return false;
  }
  return true;
}

// All arguments are integers and pointers, which travel alike, and none suffers from zeros behind the last.
template <size_t... I>
int64_t call(void* function, const int64_t* arguments, std::index_sequence<I...>) {
  return reinterpret_cast<int64_t (*)(decltype(arguments[I] + 0)...)>(function)(arguments[I]...);
}

} // namespace

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  if (!library) return fputs(dlerror(), stderr), 1;
  for (;;) {
    Blocks blocks;
    int64_t list;
    if (!read_argument(blocks, list)) return 0;
    std::vector<int64_t>& items = blocks.lists.front();
    void* function = dlsym(library, reinterpret_cast<const char*>(items[0]));
    if (!function) return fputs(dlerror(), stderr), 1;
    constexpr size_t MOST = 16; // arguments of a function
    items.resize(1 + MOST);
    int64_t result = call(function, items.data() + 1, std::make_index_sequence<MOST>());
    fwrite(&result, sizeof result, 1, stdout);
    for (const std::vector<char>& bytes : blocks.bytes) fwrite(bytes.data(), 1, bytes.size(), stdout);
    fflush(stdout);
  }
}
