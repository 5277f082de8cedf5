import type { TimedWait } from '../../../settings/index.ts';
import { bitmapFromWire, wireBitmapBytes } from '../../../wire/index.ts';
import { MigrationError } from '../../errors.ts';
import type { Links } from '../../source/links.ts';
import type { StreamWriter } from '../../source/stream-writer.ts';
import type { RemainingRam } from './remaining-ram.ts';

/** The new connections of a postcopy, and what goes over them. */
export interface Recovering {
  readonly links: Links;
  readonly stream: StreamWriter;
  /** As long as the connections last, and at most the declared time. */
  readonly wait: (promise: Promise<void>, wait: TimedWait) => Promise<void>;
}

/** Asks what the destination has of every block (RECV_BITMAP); all the rest is to be sent. */
export async function askForBitmaps({ links, stream, wait }: Recovering, ram: RemainingRam): Promise<void> {
  const received: Uint32Array[] = [];
  let count = 0;
  const all = new Promise<void>((resolve) => {
    links.returnPath!.postcopy = {
      bitmap: (idstr, bitmap) => {
        const index = ram.indexOf(idstr);
        if (index === undefined || received[index] !== undefined) throw badBitmap(idstr, 'nobody has asked for it');
        const { pageCount } = ram.blocks[index]!;
        const bytes = wireBitmapBytes(pageCount);
        if (bitmap.length !== bytes) throw badBitmap(idstr, `it has ${bitmap.length} bytes, not ${bytes}`);
        received[index] = bitmapFromWire(bitmap, pageCount);
        if (++count === ram.blocks.length) resolve();
      },
      pages: (idstr) => {
        throw badBitmap(idstr ?? '', 'a page is asked for before the bitmaps have come');
      },
      resumed: () => {
        throw badBitmap('', 'RESUME_ACK came before POSTCOPY_RESUME');
      },
    };
  });
  for (const { idstr } of ram.blocks) await stream.command({ name: 'RECV_BITMAP', block: idstr });
  await links.output.drained();
  await wait(all, 'bitmaps');
  ram.replace(received);
}

/** Has the destination go on. From here on it may ask for pages: `pages` is told. */
export async function resumeThere(
  { links, stream, wait }: Recovering,
  pages: (block: string | undefined, start: number, length: number) => void,
): Promise<void> {
  const resumed = new Promise<void>((resolve) => {
    links.returnPath!.postcopy = {
      pages,
      resumed: resolve,
      bitmap: (idstr) => {
        throw badBitmap(idstr, 'nobody has asked for it');
      },
    };
  });
  await stream.command({ name: 'POSTCOPY_RESUME' });
  await links.output.drained();
  await wait(resumed, 'resume');
}

function badBitmap(block: string, why: string): MigrationError {
  return new MigrationError({ code: 'MIGRATION_RECOVERY', block }, `recovery, block '${block}': ${why}`);
}
