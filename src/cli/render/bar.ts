/** A bar of `width` characters, brackets included; `fraction` outside 0..1 is clamped. */
export function bar(fraction: number, width: number): string {
  const inner = Math.max(width - 2, 1);
  const filled = Math.floor(Math.min(Math.max(fraction, 0), 1) * inner);
  return `[${'#'.repeat(filled)}${'-'.repeat(inner - filled)}]`;
}
