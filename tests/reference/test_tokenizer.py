"""The tokenizer against Hugging Face's library: ids, offsets, decoded text, as tokenizer_series.py runs at length."""
import unittest

import tokenizer_series

TEXTS = 150


@unittest.skipUnless(tokenizer_series.WORKER.exists(), "tokenizer_worker is not built")
class GivesTheLibrarysAnswers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.strings = tokenizer_series.hard_texts() + tokenizer_series.texts(TEXTS, seed=1)

    def compare(self, tokenizers):
        count = 0
        for name, tokenizer in tokenizers:
            with self.subTest(name):
                self.assertEqual(tokenizer_series.differences(name, tokenizer, self.strings), [])
            count += 1
        return count

    @unittest.skipUnless(tokenizer_series.SHARED and tokenizer_series.SMOLLM2, "no published tokenizers here")
    def test_of_published_tokenizers(self):
        self.assertEqual(self.compare(tokenizer_series.published()), 5)

    def test_of_every_stage_and_flag(self):
        self.assertGreater(self.compare(tokenizer_series.synthetic()), 40)


if __name__ == "__main__":
    unittest.main()
