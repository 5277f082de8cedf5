import type { FileHandle } from 'node:fs/promises';
import {
  type Configuration,
  type SectionHeader,
  type StreamEvent,
  StreamInput,
  StreamParser,
  type StreamRamBlock,
  sectionPath,
} from '../../wire/index.ts';
import { checkpointError, unsupported } from './errors.ts';
import { readAt } from './file.ts';

const READ_BYTES = 256 * 1024;

/** A FULL section in the file, as its footer says: `length` from its type byte to the end of its footer. */
export interface FoundSection {
  readonly section: SectionHeader;
  readonly offset: number;
  readonly length: number;
  readonly bodyOffset: number;
  readonly bodyLength: number;
}

/** What the stream around the pages says. */
export interface CheckpointOutline {
  readonly configuration: Configuration;
  readonly blocks: readonly StreamRamBlock[];
  /** Sections in front of RAM, and behind it. */
  readonly early: readonly FoundSection[];
  readonly devices: readonly FoundSection[];
  readonly description: string | undefined;
}

/**
 * Reads a mapped-ram file from `origin` on, over its pages and to its end. Throws WireError (with file offsets) for whatever is wrong in it,
 * CHECKPOINT_NOT_MAPPED for a plain stream, CHECKPOINT_UNSUPPORTED for sections that we could not give back.
 */
export async function scanCheckpoint(file: FileHandle, path: string, origin: number): Promise<CheckpointOutline> {
  const input = new StreamInput(path, { origin });
  const parser = new StreamParser(input.reader);
  const chunk = Buffer.allocUnsafeSlow(READ_BYTES);
  const outline = new Outline(path);
  let position = origin;
  for (;;) {
    const event = parser.next();
    if (event !== undefined) {
      outline.take(event);
      continue;
    }
    if (parser.finished) return outline.whole();
    input.release();
    const skipTo = parser.skipTo;
    if (skipTo !== undefined && skipTo > position) {
      position = await lastByteOf(file, path, skipTo, position);
      input.seek(position);
    }
    const count = await readAt(file, path, position, chunk);
    if (count === 0) input.finish();
    else input.add({ bytes: chunk, start: 0, end: count });
    position += count;
  }
}

/** Where reading may go on: at `skipTo` if the file is that long; else at its end, so that the parser says what is missing there. */
async function lastByteOf(file: FileHandle, path: string, skipTo: number, position: number): Promise<number> {
  const { size } = await file.stat().catch((error) => {
    throw checkpointError(
      { code: 'CHECKPOINT_IO', path, operation: 'stat', errno: String(error.code) },
      'cannot stat',
      error,
    );
  });
  return size >= skipTo ? skipTo : Math.max(size, position);
}

function found(event: StreamEvent & { readonly kind: 'device' }): FoundSection {
  const { section, offset, length, bodyOffset, body } = event;
  return { section, offset, length, bodyOffset, bodyLength: body.length };
}

class Outline {
  readonly #path: string;
  #configuration: Configuration | undefined;
  #blocks: readonly StreamRamBlock[] | undefined;
  readonly #early: FoundSection[] = [];
  readonly #devices: FoundSection[] = [];
  #description: string | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  take(event: StreamEvent): void {
    switch (event.kind) {
      case 'configuration':
        if (event.configuration.capabilities?.includes('mapped-ram') !== true) throw this.#notMapped();
        this.#configuration = event.configuration;
        return;
      case 'section-begin':
        return;
      case 'ram-blocks':
        this.#blocks = event.blocks;
        return;
      case 'device':
        if (event.section.kind !== 'full')
          throw unsupported(this.#path, `iterable state other than RAM (${sectionPath(event.section)})`);
        (this.#blocks === undefined ? this.#early : this.#devices).push(found(event));
        return;
      case 'vfio':
        throw unsupported(this.#path, `the state of a VFIO device (${sectionPath(event.section)})`);
      case 'command':
        // QEMU >= 10.0 says so in files too (machine types from 10.0); it carries nothing.
        if (event.command.name === 'SWITCHOVER_START') return;
        throw unsupported(this.#path, `the command ${event.command.name}`);
      case 'description':
        this.#description = event.text;
        return;
      default:
        return;
    }
  }

  whole(): CheckpointOutline {
    if (this.#configuration === undefined) throw this.#notMapped();
    if (this.#blocks === undefined) throw unsupported(this.#path, 'a machine without RAM');
    return {
      configuration: this.#configuration,
      blocks: this.#blocks,
      early: this.#early,
      devices: this.#devices,
      description: this.#description,
    };
  }

  #notMapped() {
    return checkpointError(
      { code: 'CHECKPOINT_NOT_MAPPED', path: this.#path },
      'is a migration stream without mapped-ram, so its pages have no place of their own: let QEMU load it, or receive it into a checkpoint',
    );
  }
}
