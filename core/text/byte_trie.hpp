// A set of strings walked byte by byte: the longest, or every one, that a text begins with.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace efface {

class ByteTrie {
 public:
  ByteTrie() {
    nodes_.emplace_back();
    root_.fill(kNone);
  }

  /// The first of equal keys keeps its value. value >= 0.
  void insert(std::string_view key, int32_t value) {
    uint32_t node = 0;
    for (char byte : key) {
      uint32_t next = child(node, byte);
      if (next == kNone) {
        next = static_cast<uint32_t>(nodes_.size());
        nodes_.push_back({.sibling = nodes_[node].child, .byte = byte});
        nodes_[node].child = next;
        if (node == 0) root_[static_cast<unsigned char>(byte)] = next;
      }
      node = next;
    }
    if (nodes_[node].value < 0) nodes_[node].value = value;
  }

  /// Calls f(length, value) for every key that `text` begins with, shortest first.
  template <typename F>
  void for_each_prefix(std::string_view text, F&& f) const {
    uint32_t node = 0;
    for (size_t at = 0; at < text.size(); ++at) {
      node = child(node, text[at]);
      if (node == kNone) return;
      if (nodes_[node].value >= 0) f(at + 1, nodes_[node].value);
    }
  }
  bool may_begin(char byte) const { return root_[static_cast<unsigned char>(byte)] != kNone; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t child = kNone, sibling = kNone;
    int32_t value = -1;
    char byte = 0;
  };

  uint32_t child(uint32_t node, char byte) const {
    if (node == 0) return root_[static_cast<unsigned char>(byte)];
    uint32_t at = nodes_[node].child;
    while (at != kNone && nodes_[at].byte != byte) at = nodes_[at].sibling;
    return at;
  }

  std::vector<Node> nodes_;
  std::array<uint32_t, 256> root_;
};

}  // namespace efface
