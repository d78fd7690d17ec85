// Golden values: scipy 1.17.1 (ks_2samp, kstwobign), rouge-score 0.1.2, NLTK 3.10.4.
#include <gmock/gmock.h>

#include <cmath>

#include "core/evaluate/kolmogorov_smirnov.hpp"
#include "core/evaluate/text_overlap.hpp"
#include "distributed/error.hpp"

namespace efface {
namespace {

std::vector<double> sample(int n, double step, double scale) {
  std::vector<double> values;
  for (int i = 1; i <= n; ++i) values.push_back(std::fmod(i * step, 1.0) * scale);
  return values;
}

struct KsCase {
  int n1, n2;
  double scale, statistic, p_value;
};

TEST(KolmogorovSmirnovTest, GivesScipysExactValues) {
  for (const KsCase& one :
       {KsCase{40, 40, 1.0, 0.075, 0.99992460868065}, KsCase{40, 40, 1.7, 0.4, 0.003018184077228396},
        KsCase{37, 23, 1.3, 0.2608695652173913, 0.23570288815775134},
        KsCase{400, 400, 1.2, 0.1675, 2.5720789009736948e-05},
        KsCase{400, 400, 4.0, 0.75, 3.6280508280946555e-110},
        KsCase{400, 300, 3.0, 0.6666666666666666, 8.742108002011567e-73},
        KsCase{5, 7, 1.0, 0.2571428571428571, 0.9595959595959594},
        KsCase{200, 400, 50.0, 0.98, 9.48139415358394e-151}}) {
    SCOPED_TRACE(std::to_string(one.n1) + ", " + std::to_string(one.n2));
    const auto first = sample(one.n1, 0.6180339887498949, 1.0),
               second = sample(one.n2, 0.7548776662466927, one.scale);
    const KolmogorovSmirnov result = kolmogorov_smirnov(first, second);
    EXPECT_NEAR(result.statistic, one.statistic, 1e-14);
    EXPECT_NEAR(result.p_value / one.p_value, 1, 1e-10);
    EXPECT_NEAR(kolmogorov_smirnov(second, first).p_value / one.p_value, 1, 1e-10);
  }
}

TEST(KolmogorovSmirnovTest, LargeSamplesFollowTheLimit) {
  const std::vector<std::pair<double, double>> golden = {{0.3, 0.9999906941986655},
                                                         {0.5, 0.9639452436648751},
                                                         {1.0, 0.26999967167735456},
                                                         {2.0, 0.0006709252557796953}};
  for (const auto& [x, p] : golden)
    EXPECT_NEAR(kolmogorov_smirnov_asymptotic(20000, 20000, x / std::sqrt(10000.0)), p, 1e-12);
  EXPECT_NEAR(kolmogorov_smirnov_exact(2000, 2000, 60), kolmogorov_smirnov_asymptotic(2000, 2000, 0.03),
              0.02);
}

TEST(KolmogorovSmirnovTest, EqualSamplesAreNotTellable) {
  const KolmogorovSmirnov same = kolmogorov_smirnov({1, 2, 2, 3}, {3, 2, 1, 2});
  EXPECT_EQ(same.statistic, 0);
  EXPECT_EQ(same.p_value, 1);
  EXPECT_THROW(kolmogorov_smirnov({}, {1}), Error);
  EXPECT_THROW(kolmogorov_smirnov({NAN}, {1}), Error);
}

TEST(RougeTest, GivesTheReferencesScores) {
  const std::string target = "The author's full name is Hsiao Yun-Hwa.";
  const RougeL score = rouge_l(target, "Hsiao Yun-Hwa is the author's complete name, naming names.", true);
  EXPECT_NEAR(score.precision, 0.36363636363636365, 1e-15);
  EXPECT_NEAR(score.recall, 0.4444444444444444, 1e-15);
  EXPECT_NEAR(score.f1, 0.39999999999999997, 1e-15);
  const std::string cities = "She was flying over the happiest cities in 1987",
                    other = "he flies over happy city 1987, she said";
  EXPECT_NEAR(rouge_l(cities, other, true).recall, 0.4444444444444444, 1e-15);
  EXPECT_NEAR(rouge_l(cities, other, false).recall, 0.2222222222222222, 1e-15);
  EXPECT_NEAR(rouge_l("D\xC3\xA9j\xC3\xA0 vu", "deja vu vu", true).f1, 0.3333333333333333, 1e-15);
  EXPECT_EQ(rouge_l("abc", "", true).recall, 0);
}

TEST(RougeTest, StemsAsNltkDoes) {
  const std::vector<std::pair<const char*, const char*>> golden = {{"caresses", "caress"},
                                                                   {"ponies", "poni"},
                                                                   {"dies", "die"},
                                                                   {"ties", "tie"},
                                                                   {"cats", "cat"},
                                                                   {"feed", "feed"},
                                                                   {"agreed", "agre"},
                                                                   {"plastered", "plaster"},
                                                                   {"bled", "bled"},
                                                                   {"motoring", "motor"},
                                                                   {"sing", "sing"},
                                                                   {"conflated", "conflat"},
                                                                   {"troubled", "troubl"},
                                                                   {"sized", "size"},
                                                                   {"hopping", "hop"},
                                                                   {"tanned", "tan"},
                                                                   {"falling", "fall"},
                                                                   {"hissing", "hiss"},
                                                                   {"fizzed", "fizz"},
                                                                   {"failing", "fail"},
                                                                   {"filing", "file"},
                                                                   {"happy", "happi"},
                                                                   {"sky", "sky"},
                                                                   {"skies", "sky"},
                                                                   {"dying", "die"},
                                                                   {"news", "news"},
                                                                   {"relational", "relat"},
                                                                   {"conditional", "condit"},
                                                                   {"rational", "ration"},
                                                                   {"valenci", "valenc"},
                                                                   {"hesitanci", "hesit"},
                                                                   {"digitizer", "digit"},
                                                                   {"conformabli", "conform"},
                                                                   {"radicalli", "radic"},
                                                                   {"differentli", "differ"},
                                                                   {"vileli", "vile"},
                                                                   {"analogousli", "analog"},
                                                                   {"vietnamization", "vietnam"},
                                                                   {"predication", "predic"},
                                                                   {"operator", "oper"},
                                                                   {"feudalism", "feudal"},
                                                                   {"decisiveness", "decis"},
                                                                   {"hopefulness", "hope"},
                                                                   {"callousness", "callous"},
                                                                   {"formaliti", "formal"},
                                                                   {"sensitiviti", "sensit"},
                                                                   {"sensibiliti", "sensibl"},
                                                                   {"triplicate", "triplic"},
                                                                   {"formative", "form"},
                                                                   {"formalize", "formal"},
                                                                   {"electriciti", "electr"},
                                                                   {"electrical", "electr"},
                                                                   {"hopeful", "hope"},
                                                                   {"goodness", "good"},
                                                                   {"revival", "reviv"},
                                                                   {"allowance", "allow"},
                                                                   {"inference", "infer"},
                                                                   {"airliner", "airlin"},
                                                                   {"gyroscopic", "gyroscop"},
                                                                   {"adjustable", "adjust"},
                                                                   {"defensible", "defens"},
                                                                   {"irritant", "irrit"},
                                                                   {"replacement", "replac"},
                                                                   {"adjustment", "adjust"},
                                                                   {"dependent", "depend"},
                                                                   {"adoption", "adopt"},
                                                                   {"homologou", "homolog"},
                                                                   {"communism", "commun"},
                                                                   {"activate", "activ"},
                                                                   {"angulariti", "angular"},
                                                                   {"homologous", "homolog"},
                                                                   {"effective", "effect"},
                                                                   {"bowdlerize", "bowdler"},
                                                                   {"probate", "probat"},
                                                                   {"rate", "rate"},
                                                                   {"cease", "ceas"},
                                                                   {"controll", "control"},
                                                                   {"roll", "roll"},
                                                                   {"geology", "geolog"},
                                                                   {"hopefully", "hope"},
                                                                   {"by", "by"},
                                                                   {"say", "say"},
                                                                   {"cries", "cri"},
                                                                   {"tied", "tie"},
                                                                   {"innings", "inning"},
                                                                   {"proceed", "proceed"},
                                                                   {"aed", "a"},
                                                                   {"owed", "owe"}};
  for (const auto& [word, stem] : golden) EXPECT_EQ(porter_stem(word), stem) << word;
}

}  // namespace
}  // namespace efface
