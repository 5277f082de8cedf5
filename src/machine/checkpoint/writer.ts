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
import { assert, countBits, Writer } from '../../base/index.ts';
import {
  bitmapToWire,
  type Configuration,
  encodeDescription,
  encodeEndOfStream,
  encodeSectionBegin,
  encodeSectionFooter,
  type MappedRamPlace,
  mappedRamLayout,
  type SectionHeader,
} from '../../wire/index.ts';
import type { AnnouncedBlock, DestinationMachine, IncomingRam, MissingRam, RunState } from '../machine.ts';
import { checkSections } from './check-sections.ts';
import { unsupported } from './errors.ts';
import {
  encodeEntry,
  encodeIgnoredEntry,
  encodePreface,
  encodeRamEnd,
  encodeSections,
  ramBytes,
  type Section,
} from './frame.ts';
import { PageWriter } from './page-writer.ts';
import { TemporaryFile } from './temporary-file.ts';
import { WantedPages } from './wanted-pages.ts';

/** Sections in front of RAM are kept in memory until it begins; bytes of all of them. */
const EARLY_BYTES_MAX = 64 * 1024 * 1024;

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
  readonly #file: TemporaryFile;
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
    this.#file = new TemporaryFile(path);
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
  open(): Promise<void> {
    return this.#file.open();
  }

  /** Bytes that the file system has left. Throws CHECKPOINT_PATH, CHECKPOINT_IO. */
  async freeSpace(): Promise<number> {
    await this.#file.open();
    return await this.#file.freeSpace();
  }

  async configure(configuration: Configuration): Promise<void> {
    await this.#file.open();
    this.#configuration = configuration;
  }

  /** Throws CHECKPOINT_SPACE if RAM may not fit. */
  async prepareRam(
    blocks: readonly AnnouncedBlock[],
    options: { readonly ignoreShared: boolean },
  ): Promise<IncomingRam> {
    assert(this.#ram === undefined && this.#configuration !== undefined, 'prepareRam comes once, after configure');
    const { ignoreShared } = options;
    // Blocks that turn out to be ignored have their entries in front of all others: there is room for any number of them.
    const ignored = ignoreShared ? blocks.map((block) => encodeIgnoredEntry(block, this.targetPageSize)) : [];
    const begin = this.#preface(0).length;
    const room = ignored.reduce((sum, { length }) => sum + length, 0);
    const places = mappedRamLayout(begin + room, blocks, this.targetPageSize);
    const end = places.at(-1)?.end ?? begin;
    await this.#file.requireSpace(ramBytes(blocks));
    const regions = places.map(({ pagesOffset }, index) => {
      const { idstr, usedLength } = blocks[index]!;
      return { idstr, usedLength, pagesOffset };
    });
    const pages = new PageWriter(this.#path, this.#file.fd, regions, this.targetPageSize, () => this.#openForThreads());
    this.#ram = { blocks, ignoreShared, places, end, pages };
    // EOS and footer of START ram, END ram: written when the id of ram's section is known.
    this.#tail = end + encodeRamEnd(0).length;
    this.#devicesFrom = this.#tail;
    return pages;
  }

  missingRam(): MissingRam {
    assert(this.#ram !== undefined, 'prepareRam comes first');
    return new WantedPages(this.#ram.blocks, this.targetPageSize);
  }

  #openForThreads(): { readonly fd: number; readonly direct: boolean } {
    if (!this.#directIo) return { fd: this.#file.fd, direct: false };
    return { fd: this.#file.openDirect(this.targetPageSize), direct: true };
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
      await this.#file.read(this.#devicesFrom, sections);
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
    const { pages, end, places, blocks } = this.#ram;
    await pages.end();
    for (const [index, place] of places.entries()) {
      if (this.#ignored(index)) continue;
      const pageCount = blocks[index]!.usedLength / this.targetPageSize;
      await this.#file.write(place.bitmapOffset, bitmapToWire(pages.bitmaps[index]!, pageCount));
    }
    const ramId = this.#freeId();
    await this.#file.write(end, encodeRamEnd(ramId));
    await this.#writeEntries(this.#preface(ramId));
    await this.#file.place(() => {
      this.#state = 'committed';
    });
  }

  async start(): Promise<void> {}

  async discard(): Promise<void> {
    if (this.#state === 'committed' || this.#state === 'discarded') return;
    this.#state = 'discarded';
    await this.#ram?.pages.abandon();
    await this.#file.remove();
  }

  /** The preface, then entry by entry where the reader of the stream will be: behind the preface, then behind each region. */
  async #writeEntries(preface: Buffer): Promise<void> {
    const { blocks, places } = this.#ram!;
    const order = [...blocks.keys()].sort((a, b) => Number(this.#ignored(b)) - Number(this.#ignored(a)));
    let at = preface.length;
    for (const index of order) {
      const place = places[index]!;
      const block = blocks[index]!;
      const ignored = this.#ignored(index);
      const entry = ignored ? encodeIgnoredEntry(block, place.pageSize) : encodeEntry(block, place);
      await this.#file.write(at, entry);
      at = ignored ? at + entry.length : place.end;
    }
    if (at !== this.#ram!.end) throw unsupported(this.#path, 'a machine all of whose RAM is ignored as shared');
    // Last of all: with the header it is a checkpoint.
    await this.#file.write(0, preface);
  }

  /** A shared block under x-ignore-shared, as far as one can see: any other has had every page sent at least once. */
  #ignored(index: number): boolean {
    return this.#ram!.ignoreShared && !this.#ram!.pages.isTouched(index);
  }

  #preface(ramId: number): Buffer {
    return encodePreface(this.#configuration!, this.#early, ramId, this.#ram?.blocks ?? []);
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
    await this.#file.write(at, ...parts);
  }
}
