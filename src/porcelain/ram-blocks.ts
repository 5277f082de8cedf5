import type { BlockFacts } from '../migration/index.ts';

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
/** Name, page size, offset, used, total; newer QEMUs add columns. */
const ROW = /^\s*(\S.*?)\s+(\d+) (B|[KMG]iB)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)/;

/** The table of x-query-ramblock, which is meant for people. A line that is no row of it is left out. */
export function parseRamBlocks(text: string): readonly BlockFacts[] {
  return text.split('\n').flatMap((line) => {
    const [, name, pages, unit, used, max] = ROW.exec(line) ?? [];
    if (name === undefined || unit === undefined) return [];
    const pageSize = Number(pages) * (UNITS[unit] ?? 1);
    return [{ name, used: Number.parseInt(used ?? '', 16), max: Number.parseInt(max ?? '', 16), pageSize }];
  });
}
