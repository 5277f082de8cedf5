import type { AnnouncedBlock, RamBlock } from '../machine.ts';
import { workloadError } from './errors.ts';
import { type Layout, PAGE_SIZE } from './layout.ts';

/** `hostPageSize`: of the main block, bytes; the small ones have ordinary pages. */
export function ramBlocksOf(layout: Layout, hostPageSize = PAGE_SIZE): readonly RamBlock[] {
  return layout.blocks.map(({ idstr, usedLength, guestAddress }, index) => ({
    index,
    idstr,
    usedLength,
    pageSize: index === 0 ? hostPageSize : PAGE_SIZE,
    guestAddress,
    shared: false,
  }));
}

/**
 * For each announced block the index of the own one. Every own block must be announced once, with its size and (if the stream
 * has them) address and page size. Throws WORKLOAD_RAM_BLOCKS naming all that differ.
 */
export function matchBlocks(own: readonly RamBlock[], announced: readonly AnnouncedBlock[]): number[] {
  const order = announced.map(({ idstr }) => own.findIndex((block) => block.idstr === idstr));
  const wrong: { idstr: string; own: number | undefined; announced: number | undefined }[] = [];
  announced.forEach((block, index) => {
    const match = own[order[index]!];
    const repeated = order.indexOf(order[index]!) !== index;
    if (match === undefined || repeated || !fits(match, block)) {
      wrong.push({ idstr: block.idstr, own: repeated ? undefined : match?.usedLength, announced: block.usedLength });
    }
  });
  for (const { index, idstr, usedLength } of own) {
    if (!order.includes(index)) wrong.push({ idstr, own: usedLength, announced: undefined });
  }
  if (wrong.length === 0) return order;
  const size = (bytes: number | undefined) => (bytes === undefined ? 'no such block' : `${bytes} bytes`);
  const list = wrong.map((block) => `${block.idstr}: source ${size(block.announced)}, here ${size(block.own)}`);
  throw workloadError(
    { code: 'WORKLOAD_RAM_BLOCKS', blocks: wrong },
    `RAM blocks differ from this machine's: ${list.join('; ')}`,
  );
}

function fits(own: RamBlock, block: AnnouncedBlock): boolean {
  return (
    own.usedLength === block.usedLength &&
    (block.pageSize === undefined || block.pageSize === own.pageSize) &&
    (block.guestAddress === undefined || block.guestAddress === own.guestAddress)
  );
}
