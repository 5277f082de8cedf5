/**
 * A checkpoint being filled: RAM and device state of a machine in a mapped-ram file, as QEMU >= 9.0 writes and reads it itself
 * (qemu-wire 8.1).
 *
 * ```
 * preface   header, configuration, early devices, START ram, MEM_SIZE   written last
 * block *   entry (written last), bitmap (at commit), pages (as they come, in place)
 * tail      EOS, footer, END ram, device sections as they came, EOF, description (appended)
 * ```
 * All goes into a file of a temporary name in the same folder, which is renamed when everything is on the disk. Until then it
 * has no header, so not even a look inside takes it for a checkpoint.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, constants } from 'node:fs';
import { type FileHandle, open, realpath, rename, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { assert, countBits, Writer } from '../../base/index.ts';
import {
  bitmapToWire,
  type Configuration,
  encodeConfiguration,
  encodeDescription,
  encodeEndOfStream,
  encodeHeader,
  encodeRamBlock,
  encodeRamEos,
  encodeRamTotal,
  encodeSectionBegin,
  encodeSectionFooter,
  type MappedRamPlace,
  mappedRamLayout,
  RAM_SECTION_VERSION,
  type SectionHeader,
} from '../../wire/index.ts';
import type { AnnouncedBlock, DestinationMachine, IncomingRam, MissingRam, RunState } from '../machine.ts';
import { checkSections } from './check-sections.ts';
import { checkpointError, ioError, unsupported } from './errors.ts';
import { readAt, reopenDirect, requireFileOrNothing, syncFolderOf, writeAt } from './file.ts';
import { PageWriter } from './page-writer.ts';
import { WantedPages } from './wanted-pages.ts';

/** Sections in front of RAM are kept in memory until it begins; bytes of all of them. */
const EARLY_BYTES_MAX = 64 * 1024 * 1024;
/** Name of a file: 255 bytes, of which the temporary part takes some 40. */
const NAME_KEPT_MAX = 180;

interface Section {
  readonly header: SectionHeader;
  readonly body: Buffer;
}

interface Ram {
  readonly blocks: readonly AnnouncedBlock[];
  readonly ignoreShared: boolean;
  readonly places: readonly MappedRamPlace[];
  /** Where START ram ends behind the last region. */
  readonly end: number;
  readonly pages: PageWriter;
}

export class CheckpointWriter implements DestinationMachine {
  readonly targetPageSize: number;
  readonly machineType = undefined;
  readonly uuid = undefined;
  readonly #path: string;
  readonly #directIo: boolean;
  /** Opened with O_DIRECT; -1: not. */
  #directFd = -1;
  #target = '';
  #temporary = '';
  #file: FileHandle | undefined;
  #configuration: Configuration | undefined;
  readonly #early: Section[] = [];
  #ram: Ram | undefined;
  /** Where the next byte of the tail goes. */
  #tail = 0;
  #devicesFrom = 0;
  readonly #ids = new Set<number>();
  #state: 'filling' | 'described' | 'committed' | 'discarded' = 'filling';

  /**
   * `path`: where the checkpoint shall be; a file of that name is replaced when the new one is complete. `directIo`: threads that share its RAM
   * write past the page cache; with one channel it has no effect, as in QEMU.
   */
  constructor(path: string, options: { readonly targetPageSize?: number; readonly directIo?: boolean } = {}) {
    this.#path = path;
    this.targetPageSize = options.targetPageSize ?? 4096;
    this.#directIo = options.directIo ?? false;
  }

  get runState(): RunState {
    return this.#state === 'committed' ? 'paused' : 'inmigrate';
  }

  /** Pages in the file that are not zero: known from prepareRam on. */
  get storedPages(): number {
    return (this.#ram?.pages.bitmaps ?? []).reduce((sum, map) => sum + countBits(map), 0);
  }

  /**
   * Makes the temporary file. `configure` does it if nobody has; earlier, an impossible path shows before a source has come.
   * Throws CHECKPOINT_PATH, CHECKPOINT_IO.
   */
  async open(): Promise<void> {
    if (this.#file !== undefined) return;
    await requireFileOrNothing(this.#path);
    // A symbolic link stays what it is; the file behind it is replaced.
    this.#target = await realpath(this.#path).catch(() => resolve(this.#path));
    const name = `.${basename(this.#target).slice(0, NAME_KEPT_MAX)}.vmferry-${process.pid}-${randomBytes(4).toString('hex')}.tmp`;
    this.#temporary = join(dirname(this.#target), name);
    try {
      this.#file = await open(this.#temporary, 'wx+', 0o600);
    } catch (error) {
      throw ioError(this.#path, 'make a file beside it', error);
    }
  }

  async configure(configuration: Configuration): Promise<void> {
    await this.open();
    this.#configuration = configuration;
  }

  /** Throws CHECKPOINT_SPACE if RAM may not fit. */
  async prepareRam(
    blocks: readonly AnnouncedBlock[],
    options: { readonly ignoreShared: boolean },
  ): Promise<IncomingRam> {
    assert(this.#ram === undefined && this.#configuration !== undefined, 'prepareRam comes once, after configure');
    const file = this.#openFile();
    const { ignoreShared } = options;
    // Blocks that turn out to be ignored have their entries in front of all others: there is room for any number of them.
    const entries = ignoreShared ? this.#entryBytes(blocks) : 0;
    const places = mappedRamLayout(this.#preface(0).length + entries, blocks, this.targetPageSize);
    const end = places.at(-1)?.end ?? this.#preface(0).length;
    await this.#checkSpace(blocks.reduce((sum, block) => sum + block.usedLength, 0));
    const regions = places.map(({ pagesOffset }, index) => {
      const { idstr, usedLength } = blocks[index]!;
      return { idstr, usedLength, pagesOffset };
    });
    const pages = new PageWriter(this.#path, file.fd, regions, this.targetPageSize, () => this.#openForThreads());
    this.#ram = { blocks, ignoreShared, places, end, pages };
    // EOS and footer of START ram, END ram: written when the id of ram's section is known.
    this.#tail = end + this.#ramEnd(0).length;
    this.#devicesFrom = this.#tail;
    return pages;
  }

  missingRam(): MissingRam {
    assert(this.#ram !== undefined, 'prepareRam comes first');
    return new WantedPages(this.#ram.blocks, this.targetPageSize);
  }

  #openForThreads(): { readonly fd: number; readonly direct: boolean } {
    const { fd } = this.#openFile();
    if (!this.#directIo) return { fd, direct: false };
    this.#directFd = reopenDirect(fd, this.#path, constants.O_RDWR, this.targetPageSize);
    return { fd: this.#directFd, direct: true };
  }

  drain(): Promise<void> | undefined {
    return this.#ram?.pages.drain();
  }

  async loadDevice(header: SectionHeader, body: Buffer): Promise<void> {
    if (header.kind !== 'full')
      throw unsupported(this.#path, `iterable state other than RAM (section ${header.idstr})`);
    this.#ids.add(header.id);
    if (this.#ram === undefined) {
      const bytes = this.#early.reduce((sum, section) => sum + section.body.length, body.length);
      if (bytes > EARLY_BYTES_MAX) throw unsupported(this.#path, `${bytes} bytes of device state before RAM`);
      this.#early.push({ header, body: Buffer.from(body) });
      return;
    }
    const before = new Writer();
    encodeSectionBegin(before, header);
    const after = new Writer();
    encodeSectionFooter(after, header.id);
    await this.#append(before.bytes(), body, after.bytes());
  }

  async loadElement(header: SectionHeader): Promise<void> {
    throw unsupported(this.#path, `the state of a VFIO device (section ${header.idstr})`);
  }

  measureDevice(): undefined {
    return undefined;
  }

  /** Checks the sections against the description, if there is one: throws CHECKPOINT_DEVICES if no way to split them fits it. */
  async describe(description: string): Promise<void> {
    assert(this.#ram !== undefined, 'a description comes after RAM');
    if (description !== '') {
      const sections = Buffer.allocUnsafe(this.#tail - this.#devicesFrom);
      await readAt(this.#openFile(), this.#path, this.#devicesFrom, sections);
      const parts = [
        { bytes: encodeSections(this.#early), origin: 0 },
        { bytes: sections, origin: this.#devicesFrom },
      ];
      for (const section of checkSections(this.#path, description, parts)) this.#ids.add(section.section.id);
    }
    const last = new Writer();
    encodeEndOfStream(last);
    encodeDescription(last, description);
    await this.#append(last.bytes());
    this.#state = 'described';
  }

  /** Bitmaps, entries, preface; then everything to the disk, and the real name. */
  async commit(): Promise<void> {
    assert(this.#state === 'described' && this.#ram !== undefined, 'commit comes after describe');
    const file = this.#openFile();
    const { pages, end, places, blocks } = this.#ram;
    await pages.end();
    for (const [index, place] of places.entries()) {
      if (this.#ignored(index)) continue;
      const pageCount = blocks[index]!.usedLength / this.targetPageSize;
      await writeAt(file, this.#path, place.bitmapOffset, bitmapToWire(pages.bitmaps[index]!, pageCount));
    }
    const ramId = this.#freeId();
    await writeAt(file, this.#path, end, this.#ramEnd(ramId));
    await this.#writeEntries(this.#preface(ramId));
    try {
      await file.sync();
      await this.#close();
      await rename(this.#temporary, this.#target);
      this.#state = 'committed';
      await syncFolderOf(this.#target);
    } catch (error) {
      throw ioError(this.#path, 'finish the file', error);
    }
  }

  async start(): Promise<void> {}

  async discard(): Promise<void> {
    if (this.#state === 'committed' || this.#state === 'discarded') return;
    this.#state = 'discarded';
    await this.#ram?.pages.abandon();
    await this.#close().catch(() => {});
    if (this.#temporary !== '') await unlink(this.#temporary).catch(() => {});
  }

  /** The preface, then entry by entry where the reader of the stream will be: behind the preface, then behind each region. */
  async #writeEntries(preface: Buffer): Promise<void> {
    const file = this.#openFile();
    const { blocks, places } = this.#ram!;
    const order = [...blocks.keys()].sort((a, b) => Number(this.#ignored(b)) - Number(this.#ignored(a)));
    let at = preface.length;
    for (const index of order) {
      const place = places[index]!;
      const ignored = this.#ignored(index);
      const { pageSize, bitmapOffset, pagesOffset } = place;
      const mapped = ignored ? { pageSize, bitmapOffset: 0, pagesOffset: 0 } : { pageSize, bitmapOffset, pagesOffset };
      const entry = new Writer();
      const { pageSize: _hostPageSize, ...block } = blocks[index]!;
      encodeRamBlock(entry, { ...block, mapped });
      await writeAt(file, this.#path, at, entry.bytes());
      at = ignored ? at + entry.length : place.end;
    }
    if (at !== this.#ram!.end) throw unsupported(this.#path, 'a machine all of whose RAM is ignored as shared');
    // Last of all: with the header it is a checkpoint.
    await writeAt(file, this.#path, 0, preface);
  }

  /** A shared block under x-ignore-shared, as far as one can see: any other has had every page sent at least once. */
  #ignored(index: number): boolean {
    return this.#ram!.ignoreShared && !this.#ram!.pages.isTouched(index);
  }

  #preface(ramId: number): Buffer {
    const writer = new Writer();
    encodeHeader(writer);
    const configuration = this.#configuration!;
    const others = (configuration.capabilities ?? []).filter((name) => name !== 'mapped-ram');
    encodeConfiguration(writer, { ...configuration, capabilities: [...others, 'mapped-ram'] });
    writer.raw(encodeSections(this.#early));
    encodeSectionBegin(writer, { kind: 'start', id: ramId, idstr: 'ram', instance: 0, version: RAM_SECTION_VERSION });
    encodeRamTotal(
      writer,
      (this.#ram?.blocks ?? []).reduce((sum, block) => sum + block.usedLength, 0),
    );
    return writer.bytes();
  }

  #ramEnd(ramId: number): Buffer {
    const writer = new Writer();
    encodeRamEos(writer);
    encodeSectionFooter(writer, ramId);
    encodeSectionBegin(writer, { kind: 'end', id: ramId, idstr: 'ram', instance: 0, version: RAM_SECTION_VERSION });
    encodeRamEos(writer);
    encodeSectionFooter(writer, ramId);
    return writer.bytes();
  }

  #entryBytes(blocks: readonly AnnouncedBlock[]): number {
    const writer = new Writer();
    for (const block of blocks)
      encodeRamBlock(writer, { ...block, mapped: { pageSize: 0, bitmapOffset: 0, pagesOffset: 0 } });
    return writer.length;
  }

  /** Not 0: QEMU takes a PART or END of section 0 for one of any section that it has not met yet. */
  #freeId(): number {
    let id = 1;
    while (this.#ids.has(id)) id++;
    return id;
  }

  async #append(...parts: Buffer[]): Promise<void> {
    const at = this.#tail;
    this.#tail += parts.reduce((sum, part) => sum + part.length, 0);
    await writeAt(this.#openFile(), this.#path, at, ...parts);
  }

  async #checkSpace(needed: number): Promise<void> {
    const { bavail, bsize } = await statfs(dirname(this.#target)).catch((error) => {
      throw ioError(this.#path, 'ask for free space', error);
    });
    const free = bavail * bsize;
    if (free >= needed) return;
    throw checkpointError(
      { code: 'CHECKPOINT_SPACE', path: this.#path, needed, free },
      `the machine's RAM may need ${needed} bytes, the file system has ${free}`,
    );
  }

  async #close(): Promise<void> {
    if (this.#directFd >= 0) closeSync(this.#directFd);
    this.#directFd = -1;
    await this.#file?.close();
    this.#file = undefined;
  }

  #openFile(): FileHandle {
    if (this.#file === undefined)
      throw checkpointError({ code: 'CHECKPOINT_CLOSED', path: this.#path }, 'the checkpoint is closed');
    return this.#file;
  }
}

function encodeSections(sections: readonly Section[]): Buffer {
  const writer = new Writer();
  for (const { header, body } of sections) {
    encodeSectionBegin(writer, header);
    writer.raw(body);
    encodeSectionFooter(writer, header.id);
  }
  return writer.bytes();
}
