// Numbers as the server's templates show them.

/** Returns a share of 1 as `81.2%`. */
export const percent = (share) => `${(100 * share).toFixed(1)}%`;

/** Returns four significant digits, or all of a whole number: `0.4312`, `12,345`. */
export function formatNumber(value) {
  const isLong = Math.abs(value) >= 9999.5 && Math.abs(value) < 1e15;
  return isLong ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}
