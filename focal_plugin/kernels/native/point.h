// What a variant's point function is given, and what it gives back: kLanes elements at a time.
#pragma once
#include "vmath.h"

namespace focal_plugin {

// What one logit or probability gives. The compiler drops what a variant does not use.
struct Terms {
  V x, p, q, log_p, log_q;     // logit, sigmoid(x), 1 - p, log p, log(1 - p)
  V e, base, scale;            // p = base scale = base / (1 + e): what p - y is formed from
  bool holds_epsilon = false;  // in the logarithms, and in place of a p or q of 0
};

struct Point {
  V value, derivative;  // the derivative is with respect to the logit
};

// What a variant does with probabilities at 0 and 1.
enum Probabilities : int {
  kNoProbabilities,
  kStopped,     // logarithms stop at -100, as in torch's binary_cross_entropy
  kWithEpsilon  // 1e-12 is added inside logarithms, as in mmdet's Gaussian focal loss
};

FP_INLINE Point select(Mask mask, const Point &yes, const Point &no) {
  return {select(mask, yes.value, no.value), select(mask, yes.derivative, no.derivative)};
}
FP_INLINE Point times(V factor, const Point &point) { return {factor * point.value, factor * point.derivative}; }

// Targets. choose(one, zero) is the mean of two terms weighted by y, exact at y = 1 and y = 0 whatever the other is;
// mix is the same of terms that are finite; split calls what a positive or a negative gives, only that where it is
// known.
template <bool POSITIVE> struct Hard {
  static constexpr bool is_hard = true;
  static constexpr float y = POSITIVE ? 1.f : 0.f;
  FP_INLINE V choose(V one, V zero) { return POSITIVE ? one : zero; }
  FP_INLINE V mix(V one, V zero) { return POSITIVE ? one : zero; }
  template <class One, class Zero> FP_INLINE Point split(One one, Zero zero) {
    if constexpr (POSITIVE) return one();
    return zero();
  }
};
using Positive = Hard<true>;
using Negative = Hard<false>;

struct Soft {
  static constexpr bool is_hard = false;
  V y;
  Mask is_positive;
  FP_METHOD V choose(V one, V zero) const { return select(y == 1.f, one, select(y == 0.f, zero, mix(one, zero))); }
  FP_METHOD V mix(V one, V zero) const { return fma(y, one, (1.f - y) * zero); }
  template <class One, class Zero>
  FP_METHOD Point split(One one, Zero zero) const {
    return select(is_positive, one(), zero());
  }
};

FP_INLINE Terms terms_of_logit(V x) {
  const Mask negative = x < 0.f;
  const V e = exp_nonpositive(select(negative, x, -x));
  const V l = -log1p_over(e);
  const V r = 1.f / (1.f + e);
  const V er = e * r;
  const V log_p = fma(l, e, select(negative, x, V{})), log_q = fma(l, e, select(negative, V{}, -x));
  return {x, select(negative, er, r), select(negative, r, er), log_p, log_q, e, select(negative, e, all(1.f)), r};
}

// p - y = (base - y (1 + e)) / (1 + e). Near p = y, base - y is exact, and only the error of e is left, where the
// difference itself would keep the roundings of 1 + e, of its reciprocal and of p.
FP_INLINE V p_minus(const Terms &t, V y) { return fma(-y, t.e, t.base - y) * t.scale; }

// -log(1 - s), given that logarithm too: near 0 from s, which 1 - s has rounded away.
FP_INLINE V minus_log_of_complement(V s, V log) {
  const V series = s * polynomial(s, 0.262869239f, 0.242701784f, 0.333668858f, 0.499994665f, 1.f);
  return select(s >= 0.125f, -log, series);  // a NaN takes the series
}

template <int MODE>
FP_INLINE Terms terms_of_probability(V p) {
  V q = 1.f - p;
  const V epsilon = all(1e-12f), least = all(1e-30f);
  if (MODE == kWithEpsilon) {  // the derivative by p is formed from that by the logit: 0 / 0 there
    p = greater(p, least);
    q = greater(q, least);
  }
  // Nothing is added to a subnormal p, whose sum the processor may flush to 0.
  const V log_p = log_nonnegative(MODE == kWithEpsilon ? p + epsilon : p);
  const V log_of_q = MODE == kWithEpsilon ? rough_log(q + epsilon) : log_nonnegative(q);
  const V log_q = -minus_log_of_complement(p, log_of_q);
  if (MODE == kWithEpsilon) return {log_p - log_q, p, q, log_p, log_q, V{}, p, all(1.f), true};
  const V low = all(-100.f);
  return {log_p - log_q, p, q, select(log_p < low, low, log_p), select(log_q < low, low, log_q), V{}, p, all(1.f)};
}

// What the derivative by the logit is multiplied by to become the derivative by a probability.
template <int MODE>
FP_INLINE V outer_derivative_of_probability(const Terms &t, V y) {
  const V p = MODE == kWithEpsilon ? select(y == 1.f, t.p + 1e-12f, t.p) : t.p;
  const V q = MODE == kWithEpsilon ? select(y == 1.f, t.q, t.q + 1e-12f) : t.q;
  const float least = MODE == kWithEpsilon ? 1e-37f : 1e-12f;
  const V v = p * q;
  return 1.f / select(v < least, all(least), v);
}

// base^exponent of a base in [0, 1] whose logarithm is at hand. EXPONENT 0, 1, 2 and 4 are fixed at compile time; any
// other comes through the logarithm.
template <int EXPONENT>
FP_INLINE V power(V base, V log_base, V exponent) {
  if (EXPONENT == 0) return all(1.f);
  if (EXPONENT == 1) return base;
  if (EXPONENT == 2) return base * base;
  if (EXPONENT == 4) return (base * base) * (base * base);
  return select(exponent == 0.f, all(1.f), exp_nonpositive(exponent * log_base));
}

// The same of a base that may be above 1.
template <int EXPONENT>
FP_INLINE V power_above_one(V base, V log_base, V exponent) {
  if (EXPONENT >= 0) return power<EXPONENT>(base, log_base, exponent);
  return select(exponent * log_base > 88.f, all(infinity()), power<EXPONENT>(base, log_base, exponent));
}

// The same of a base in [0, 1] of which the logarithm alone is at hand, and of one of which it is not.
FP_INLINE V power_by_log(V log_base, V exponent) { return power<-1>(log_base, log_base, exponent); }
FP_INLINE V power_by_log_near_one(V log_base, V exponent) {  // where what is left to 1 matters
  return exp_near_one(select(exponent == 0.f, V{}, exponent * log_base));
}
template <int EXPONENT = -1>
FP_INLINE V power_by_base(V base, V exponent) {
  return EXPONENT < 0 ? power_by_log(log_nonnegative(base), exponent) : power<EXPONENT>(base, base, exponent);
}

// base^(EXPONENT - 1), given base^EXPONENT; 0 at a base of 0 where the exponent is not known at compile time.
template <int EXPONENT>
FP_INLINE V power_less_one(V base, V powered) {
  if (EXPONENT == 1) return all(1.f);
  if (EXPONENT == 2) return base;
  if (EXPONENT == 4) return base * base * base;
  return select(base == 0.f, V{}, powered / base);
}

// What the losses that modulate by 1 - p_t have in common.
struct FocalTerms {
  V one_minus_pt, log_one_minus_pt;
  V d_log_one_minus_pt;  // p (1 - p) / (1 - p_t): by the logit, but for the factor 1 - 2 y
  V cross_entropy;
};

template <class Target>
FP_INLINE FocalTerms focal_terms(const Terms &t, const Target &target) {
  FocalTerms terms{target.mix(t.q, t.p), target.choose(t.log_q, t.log_p), target.choose(t.p, t.q),
                   -target.choose(t.log_p, t.log_q)};
  if constexpr (!Target::is_hard) {
    const V one_minus_pt = terms.one_minus_pt, least = all(1e-37f);
    const V quotient = t.p * t.q / select(one_minus_pt < least, least, one_minus_pt);
    const Mask between = (target.y > 0.f) & (target.y < 1.f);
    terms.log_one_minus_pt = select(between, log_nonnegative(one_minus_pt), terms.log_one_minus_pt);
    terms.d_log_one_minus_pt = select(between, quotient, terms.d_log_one_minus_pt);
  }
  return terms;
}

template <class Target>
FP_INLINE V residual_of(const Terms &t, const Target &target) {  // p - y
  if constexpr (!Target::is_hard) return p_minus(t, target.y);
  return target.mix(-t.q, t.p);
}

template <class Target>
FP_INLINE Point cross_entropy(const Terms &t, const Target &target) {
  return {-target.choose(t.log_p, t.log_q), residual_of(t, target)};
}

// p^gamma (-log(1 - p)), without the gradient of p^gamma where detach is 1.
template <int GAMMA>
FP_INLINE Point focal_negative(const Terms &t, V gamma, V detach) {
  const V modulating = power<GAMMA>(t.p, t.log_p, gamma);
  return {modulating * -t.log_q, modulating * fma((1.f - detach) * gamma * t.q, -t.log_q, t.p)};
}

// |y - p|^beta BCE(p, y).
template <int BETA, class Target>
FP_INLINE Point quality(const Terms &t, const Target &target, V beta) {
  const Point entropy = cross_entropy(t, target);
  const V distance = select(entropy.derivative < 0.f, -entropy.derivative, entropy.derivative);
  const V modulating = power_by_base<BETA>(distance, beta);
  // beta |p - y|^(beta - 1) sign(p - y), 0 at p = y
  const V through = select(distance == 0.f, V{}, beta * modulating / entropy.derivative);
  return {modulating * entropy.value, fma(modulating, entropy.derivative, through * t.p * t.q * entropy.value)};
}

}  // namespace focal_plugin
