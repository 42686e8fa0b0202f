/* A histogram whose buckets grow with what is in them: 128 to every power of two. */
#include "probe.h"

#define FINE_BITS 7
#define FINE (1u << FINE_BITS)
#define LISTED 8        /* parts of a power of two in the answer's list */

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int power = ns < FINE ? 0 : 63 - (unsigned int)__builtin_clzll(ns) - FINE_BITS;
	return power * FINE + (unsigned int)(ns >> power);
}

/* The smallest value beyond a bucket. */
static uint64_t bucket_end(unsigned int bucket)
{
	unsigned int power = bucket < 2 * FINE ? 0 : bucket / FINE - 1;
	return (uint64_t)(bucket - power * FINE + 1) << power;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	if (histogram->count == 0 || ns < histogram->least)
		histogram->least = ns;
	if (ns > histogram->most)
		histogram->most = ns;
	histogram->count++;
	histogram->sum += ns;
	histogram->buckets[bucket_of(ns)]++;
}

uint64_t histogram_at(const struct histogram *histogram, double share)
{
	uint64_t wanted = (uint64_t)(share * (double)histogram->count + 0.5), seen = 0;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= wanted && seen > 0) {
			uint64_t begin = i ? bucket_end(i - 1) : 0, middle = begin + (bucket_end(i) - 1 - begin) / 2;
			return middle > histogram->most ? histogram->most : middle < histogram->least ?
				histogram->least : middle;
		}
	}
	return 0;
}

void histogram_answer(const struct histogram *histogram)
{
	static const struct { const char *key; double share; } percentiles[] = {
		{ "p50_ns", 0.5 }, { "p90_ns", 0.9 }, { "p99_ns", 0.99 }, { "p999_ns", 0.999 },
	};
	answer_count("count", histogram->count);
	answer_number("mean_ns", histogram->count ? (double)histogram->sum / (double)histogram->count : 0);
	answer_count("min_ns", histogram->least);
	for (unsigned int i = 0; i < sizeof(percentiles) / sizeof(*percentiles); i++)
		answer_count(percentiles[i].key, histogram_at(histogram, percentiles[i].share));
	answer_count("max_ns", histogram->most);
	answer_list_begin("histogram");
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i += FINE / LISTED) {
		uint64_t sum = 0;
		for (unsigned int j = i; j < i + FINE / LISTED; j++)
			sum += histogram->buckets[j];
		if (sum > 0) {
			answer_list_add(bucket_end(i + FINE / LISTED - 1) - 1);
			answer_list_add(sum);
		}
	}
	answer_list_end();
}
