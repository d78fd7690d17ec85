// A hash table from 64-bit keys to small values that is filled once and read often.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace efface {

template <typename Value>
class FlatMap {
 public:
  explicit FlatMap(size_t expected = 0)
      : slots_(std::bit_ceil(2 * expected + 2)), shift_(64 - std::countr_zero(slots_.size())) {}

  /// A key seen before gets the new value. At most `expected` keys, none of them kEmpty.
  void set(uint64_t key, const Value& value) {
    Slot& slot = slots_[find_slot(key)];
    slot.key = key;
    slot.value = value;
  }
  const Value* find(uint64_t key) const {
    const Slot& slot = slots_[find_slot(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };
  size_t find_slot(uint64_t key) const {
    constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;  // Fibonacci hashing
    size_t at = (key ^ (key >> 32)) * kGolden >> shift_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace efface
