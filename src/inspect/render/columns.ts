/** Text in columns, two blanks between them; numbers to the right. */
export type Align = 'left' | 'right';

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
}

const coloured = (code: number) => (text: string) => (text === '' ? '' : `\x1b[${code}m${text}\x1b[0m`);

export const COLOURS: Paint = { bold: coloured(1), dim: coloured(2), red: coloured(31) };
const same = (text: string) => text;
export const PLAIN: Paint = { bold: same, dim: same, red: same };

/** Lines of a table below its (dim) head. */
export function columns(
  paint: Paint,
  head: readonly (readonly [title: string, align: Align])[],
  rows: readonly (readonly string[])[],
): string[] {
  const widths = head.map(([title], i) =>
    rows.reduce((max, row) => Math.max(max, (row[i] ?? '').length), title.length),
  );
  const line = (cells: readonly string[]) =>
    head
      .map(([, align], i) => {
        const cell = cells[i] ?? '';
        return align === 'left' ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
      })
      .join('  ')
      .trimEnd();
  return [paint.dim(line(head.map(([title]) => title))), ...rows.map(line)].map((text) => `  ${text}`);
}

export function number(value: number): string {
  return value.toLocaleString('en-US');
}

/** Offsets, as debuggers and hex viewers show them. */
export function hexOffset(offset: number): string {
  return `0x${offset.toString(16).padStart(8, '0')}`;
}

/** Names come from the stream: nothing of them may steer a terminal. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?');
}
