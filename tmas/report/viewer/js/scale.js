// Maps values to pixels and finds round values for tick marks.

/**
 * Maps values to pixels. `ticks` are round values in the range. A logarithmic scale is for positive values. It draws
 * others where the smallest positive value is.
 */
function scale(values, from, to, log, range) {
  const drawn = log ? values.filter((value) => value > 0) : values;
  let [low, high] = range || (drawn.length ? [Math.min(...drawn), Math.max(...drawn)] : [1, 2]);
  if (low === high) high = log ? 2 * low : low + 1;
  if (!range && !log) high += 0.04 * (high - low);
  const f = log ? (value) => Math.log(Math.max(value, low)) : (value) => value;
  const at = (value) => from + ((f(value) - f(low)) / (f(high) - f(low))) * (to - from);
  const many = Math.max(2, Math.floor(Math.abs(to - from) / 50));
  const least = values.every(Number.isInteger) && high - low > 1 ? 1 : 0; // there is no iteration 0.5
  return { at, ticks: log ? logTicks(low, high, many) : linearTicks(low, high, many, least) };
}

function linearTicks(low, high, many, least) {
  const rough = (high - low) / many;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(least, power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999));
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let i = first; i * step <= high * (1 + 1e-9); i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high, many) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
    for (const factor of [1, 2, 5]) found.push(Number((factor * 10 ** power).toPrecision(12)));
  }
  const within = found.filter((value) => value >= low && value <= high);
  const decades = within.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6));
  if (within.length < 2) return linearTicks(low, high, many, 0); // such as 3 to 4
  return within.length > many && decades.length > 1 ? decades : within;
}
