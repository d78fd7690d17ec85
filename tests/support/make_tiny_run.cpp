// make_tiny_run FOLDER: a tiny model, data and a recipe, for scripts that run the program.
#include <iostream>

#include "tests/recipes/tiny_run.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: make_tiny_run FOLDER\n";
    return 2;
  }
  efface::testing::write_tiny_run(argv[1]);
  return 0;
}
