/** A checkpoint to send from: RAM and device state out of a mapped-ram file, written by vmferry or by QEMU >= 9.0. */
import { closeSync, constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { newSharedBitmap } from '../../base/index.ts';
import {
  bitmapFromWire,
  decodeBody,
  encodeBody,
  globalState,
  globalStateOf,
  isSuspended,
  pageSizeOf,
  RECV_BITMAP_BYTES_MAX,
  type SectionHeader,
  type StreamRamBlock,
  wireBitmapBytes,
} from '../../wire/index.ts';
import type {
  DeviceSection,
  PageSource,
  PageWindow,
  RamBlock,
  RunState,
  SavedDevices,
  SourceMachine,
} from '../machine.ts';
import type { FileRam } from '../shared-ram.ts';
import { checkSections } from './check-sections.ts';
import { checkpointError, ioError, unsupported } from './errors.ts';
import { readAt, reopenDirect, requireFileOrNothing } from './file.ts';
import { PagePicker } from './page-picker.ts';
import { type BlockPages, PageReader } from './page-reader.ts';
import { type CheckpointOutline, type FoundSection, scanCheckpoint } from './scan.ts';

/** Run states a machine that does not run can be in; `running` becomes `paused`. */
const STANDING = new Set<string>(['prelaunch', 'paused', 'postmigrate', 'shutdown', 'internal-error']);

export interface CheckpointOptions {
  /** Where in the file the checkpoint begins, bytes (file:PATH,offset=N). */
  readonly offset?: number;
  /** The guest is paused at the destination; otherwise it does what it did when it was saved. */
  readonly paused?: boolean;
  /** Threads that share its RAM read past the page cache. */
  readonly directIo?: boolean;
}

interface Parts {
  readonly file: FileHandle;
  readonly path: string;
  readonly outline: CheckpointOutline;
  readonly blocks: readonly BlockPages[];
  readonly early: readonly DeviceSection[];
  readonly devices: readonly LocatedSection[];
  readonly runState: RunState;
  readonly paused: boolean;
  readonly directIo: boolean;
}

interface LocatedSection {
  readonly section: SectionHeader;
  readonly bodyOffset: number;
  readonly bodyLength: number;
}

export class CheckpointReader implements SourceMachine {
  readonly machineType: string;
  readonly uuid: Uint8Array | undefined;
  readonly targetPageSize: number;
  readonly ram: readonly RamBlock[];
  readonly dirtyLog = undefined;
  readonly iterables = [];
  readonly earlyDevices: readonly DeviceSection[];
  /** The checkpoint lacks RAM that was shared (x-ignore-shared): it can only go where that RAM is. */
  readonly ignoreShared: boolean;
  readonly #parts: Parts;
  readonly #pages: PageReader;
  #shared: FileRam | undefined;
  #runState: RunState;

  /**
   * Opens a checkpoint and checks all of it but the content of its pages. Throws CHECKPOINT_IO, CHECKPOINT_PATH, CHECKPOINT_NOT_MAPPED,
   * CHECKPOINT_UNSUPPORTED, CHECKPOINT_DEVICES, WireError.
   */
  static async open(path: string, options: CheckpointOptions = {}): Promise<CheckpointReader> {
    await requireFileOrNothing(path);
    const file = await open(path, 'r').catch((error) => {
      throw ioError(path, 'open the checkpoint', error);
    });
    try {
      const outline = await scanCheckpoint(file, path, options.offset ?? 0);
      const located = (found: readonly FoundSection[]) => locateSections(file, path, found, outline.description);
      const devices = await located(outline.devices);
      return new CheckpointReader({
        file,
        path,
        outline,
        blocks: await Promise.all(outline.blocks.map((block) => readBitmap(file, path, block))),
        early: await readBodies(file, path, await located(outline.early)),
        devices,
        runState: await readRunState(file, path, devices),
        paused: options.paused ?? false,
        directIo: options.directIo ?? false,
      });
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  private constructor(parts: Parts) {
    const { configuration, blocks } = parts.outline;
    this.#parts = parts;
    this.machineType = configuration.machineType;
    this.uuid = configuration.uuid;
    this.targetPageSize = pageSizeOf(configuration.targetPageBits);
    this.ignoreShared = configuration.capabilities?.includes('x-ignore-shared') === true;
    const shared = sharedBlocks(parts.blocks, this.ignoreShared);
    this.ram = blocks.map(({ idstr, usedLength, guestAddress }, index) => ({
      index,
      idstr,
      usedLength,
      // Unknown: it is that of the memory, not of the file.
      pageSize: this.targetPageSize,
      guestAddress: guestAddress ?? 0,
      shared: shared[index]!,
    }));
    this.earlyDevices = parts.early;
    this.#runState = parts.runState;
    this.#pages = new PageReader(parts.blocks, this.targetPageSize, async (position, into) => {
      await readWhole(parts.file, parts.path, position, into);
    });
  }

  /** What the machine was when it was saved; a running one stands paused here. */
  get runState(): RunState {
    return this.#runState;
  }

  window(block: number, page: number): PageWindow | Promise<PageWindow> {
    return this.#pages.window(block, page);
  }

  pageSource(): PageSource {
    const { path, file, blocks } = this.#parts;
    return new PagePicker(path, file.fd, blocks, this.targetPageSize);
  }

  pageMap(block: number): Uint32Array {
    return this.#parts.blocks[block]!.bitmap;
  }

  /** Throws CHECKPOINT_DIRECT_IO. */
  sharedRam(): FileRam {
    this.#shared ??= this.#share();
    return this.#shared;
  }

  #share(): FileRam {
    const { file, path, blocks, directIo } = this.#parts;
    return {
      kind: 'file',
      path,
      pageSize: this.targetPageSize,
      fd: directIo ? reopenDirect(file.fd, path, constants.O_RDONLY, this.targetPageSize) : file.fd,
      direct: directIo,
      blocks: this.ram.map(({ idstr, usedLength, index }) => {
        const { bitmap, pagesOffset } = blocks[index]!;
        return { idstr, usedLength, pagesOffset, bitmap: bitmap.buffer };
      }),
      touched: new SharedArrayBuffer(blocks.length * 4),
    };
  }

  async stop(state: RunState): Promise<void> {
    this.#runState = state;
  }

  async resume(): Promise<void> {
    this.#runState = this.#parts.runState;
  }

  setRunState(state: RunState): void {
    this.#runState = state;
  }

  throttle(): void {}

  /** The sections as they were saved, the global state too unless it shall be paused: what ran, or slept, then does so again at the destination. */
  async saveDevices(): Promise<SavedDevices> {
    const { file, path, devices, outline, paused } = this.#parts;
    const saved = await readBodies(file, path, devices);
    const sections = paused ? saved.map((section) => pausedSection(section, path)) : saved;
    return { sections, description: outline.description };
  }

  async close(): Promise<void> {
    await this.#pages.idle();
    if (this.#shared?.direct) closeSync(this.#shared.fd);
    this.#shared = undefined;
    await this.#parts.file.close();
  }
}

/**
 * Which blocks were left out as shared. Files of QEMU >= 11.0, and ours, give them no region; older ones reserve one and leave its bitmap
 * empty, as that of a block that is all zero.
 */
function sharedBlocks(blocks: readonly BlockPages[], ignoreShared: boolean): boolean[] {
  const marked = blocks.some(({ pagesOffset }) => pagesOffset === 0);
  return blocks.map(
    ({ pagesOffset, bitmap }) => ignoreShared && (marked ? pagesOffset === 0 : bitmap.every((word) => word === 0)),
  );
}

/** Where the bodies of `found` are: by the description if there is one, else as their footers say. */
async function locateSections(
  file: FileHandle,
  path: string,
  found: readonly FoundSection[],
  description: string | undefined,
): Promise<readonly LocatedSection[]> {
  if (description === undefined || description === '') return found;
  const runs: { origin: number; length: number }[] = [];
  for (const { offset, length } of found) {
    const last = runs.at(-1);
    if (last !== undefined && last.origin + last.length === offset) last.length += length;
    else runs.push({ origin: offset, length });
  }
  const parts = runs.map(async ({ origin, length }) => {
    const bytes = Buffer.allocUnsafe(length);
    await readWhole(file, path, origin, bytes);
    return { origin, bytes };
  });
  return checkSections(path, description, await Promise.all(parts));
}

async function readBodies(
  file: FileHandle,
  path: string,
  located: readonly LocatedSection[],
): Promise<DeviceSection[]> {
  const sections: DeviceSection[] = [];
  for (const { section, bodyOffset, bodyLength } of located) {
    const body = Buffer.allocUnsafe(bodyLength);
    await readWhole(file, path, bodyOffset, body);
    const { idstr, instance, version } = section;
    sections.push({ idstr, instance, version, body });
  }
  return sections;
}

async function readRunState(file: FileHandle, path: string, located: readonly LocatedSection[]): Promise<RunState> {
  const [section] = await readBodies(
    file,
    path,
    located.filter(({ section }) => section.idstr === globalState.name),
  );
  if (section === undefined) return 'paused';
  const { runstate } = decodeBody(globalState, section.version, Buffer.from(section.body), { stream: path });
  return STANDING.has(runstate) ? (runstate as RunState) : 'paused';
}

/** A guest that sleeps is paused in its sleep. */
function pausedSection(section: DeviceSection, path: string): DeviceSection {
  if (section.idstr !== globalState.name) return section;
  const saved = decodeBody(globalState, section.version, Buffer.from(section.body), { stream: path });
  return { ...section, body: encodeBody(globalState, globalStateOf('paused', isSuspended(saved))) };
}

async function readBitmap(file: FileHandle, path: string, block: StreamRamBlock): Promise<BlockPages> {
  const { pageSize, bitmapOffset, pagesOffset } = block.mapped!;
  const pageCount = block.usedLength / pageSize;
  if (pagesOffset === 0) return { pageCount, pagesOffset, bitmap: newSharedBitmap(pageCount) };
  const length = wireBitmapBytes(pageCount);
  if (length > RECV_BITMAP_BYTES_MAX) throw unsupported(path, `block ${block.idstr} of ${block.usedLength} bytes`);
  const bytes = Buffer.allocUnsafe(length);
  await readWhole(file, path, bitmapOffset, bytes);
  const bitmap = newSharedBitmap(pageCount);
  bitmap.set(bitmapFromWire(bytes, pageCount));
  return { pageCount, pagesOffset, bitmap };
}

async function readWhole(file: FileHandle, path: string, position: number, into: Buffer): Promise<void> {
  const count = await readAt(file, path, position, into);
  if (count === into.length) return;
  throw checkpointError(
    { code: 'CHECKPOINT_IO', path, operation: 'read', errno: 'EOF' },
    `ends at offset ${position + count}, ${into.length} bytes from offset ${position} were wanted`,
  );
}
