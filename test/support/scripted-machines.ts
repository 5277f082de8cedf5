/**
 * Machines without a guest: the source's RAM is rewritten by script, all of it at once, each time the dirty log is taken, so that every page goes
 * once in each round and shows of which round it is.
 */
import { countBits, fillBitmap } from '../../src/base/index.ts';
import type {
  DestinationMachine,
  DirtyLog,
  IncomingRam,
  MemoryRam,
  PageWindow,
  RamBlock,
  RunState,
  SavedDevices,
  SourceIterable,
  SourceMachine,
} from '../../src/machine/index.ts';

const PAGE = 4096;
const IDSTR = 'scripted';

export class ScriptedRam {
  readonly memory: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly bytes: Buffer;
  readonly pageCount: number;

  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.memory = new SharedArrayBuffer(pageCount * PAGE);
    this.words = new Int32Array(this.memory);
    this.bytes = Buffer.from(this.memory);
  }

  /** Of each page the first word, if all its words are alike; -1 if they are not. */
  versions(): number[] {
    return Array.from({ length: this.pageCount }, (_, page) => {
      const words = this.words.subarray((page * PAGE) / 4, ((page + 1) * PAGE) / 4);
      return words.every((word) => word === words[0]) ? words[0]! : -1;
    });
  }

  shared(): MemoryRam {
    const block = { idstr: IDSTR, usedLength: this.pageCount * PAGE, memory: this.memory, byteOffset: 0 };
    return { kind: 'memory', pageSize: PAGE, isZero: false, blocks: [block] };
  }
}

export class ScriptedSource implements SourceMachine {
  readonly machineType: string;
  readonly uuid = undefined;
  readonly targetPageSize = PAGE;
  readonly iterables: readonly SourceIterable[];
  readonly content: ScriptedRam;
  readonly ram: readonly RamBlock[];
  readonly dirtyLog: DirtyLog;
  runState: RunState = 'running';
  version = 1;

  /** The pages get versions 1, 2, ... `versions`: a new one at each harvest, and the last when the guest is stopped. */
  constructor(machineType: string, pageCount: number, versions: number, iterables: readonly SourceIterable[] = []) {
    this.machineType = machineType;
    this.iterables = iterables;
    this.content = new ScriptedRam(pageCount);
    this.content.words.fill(1);
    const usedLength = pageCount * PAGE;
    this.ram = [{ index: 0, idstr: IDSTR, usedLength, pageSize: PAGE, guestAddress: 0, shared: false }];
    this.dirtyLog = {
      start: async () => {},
      stop: async () => {},
      harvest: (_block, into) => {
        const last = this.runState === 'running' ? versions - 1 : versions;
        if (this.version === last) return 0;
        this.content.words.fill(++this.version);
        const before = countBits(into);
        fillBitmap(into, pageCount);
        return pageCount - before;
      },
    };
  }

  window(): PageWindow {
    return { bytes: this.content.bytes, firstPage: 0, pageCount: this.content.pageCount };
  }

  sharedRam(): MemoryRam {
    return this.content.shared();
  }

  async stop(state: RunState): Promise<void> {
    this.runState = state;
  }

  async resume(): Promise<void> {
    this.runState = 'running';
  }

  setRunState(state: RunState): void {
    this.runState = state;
  }

  throttle(): void {}

  async saveDevices(): Promise<SavedDevices> {
    return { sections: [], description: undefined };
  }
}

export class ScriptedDestination implements DestinationMachine {
  readonly targetPageSize = PAGE;
  readonly machineType = undefined;
  readonly uuid = undefined;
  readonly content: ScriptedRam;
  runState: RunState = 'inmigrate';

  constructor(pageCount: number) {
    this.content = new ScriptedRam(pageCount);
  }

  async configure(): Promise<void> {}

  async prepareRam(): Promise<IncomingRam> {
    const { bytes } = this.content;
    return {
      page: (_block, offset, from, at) => void from.copy(bytes, offset, at, at + PAGE),
      zero: (_block, offset) => void bytes.fill(0, offset, offset + PAGE),
      read: (_block, offset, into) => void bytes.copy(into, 0, offset, offset + PAGE),
      share: () => this.content.shared(),
    };
  }

  drain(): undefined {}

  async loadDevice(): Promise<void> {}

  async loadElement(): Promise<void> {}

  measureDevice(): undefined {
    return undefined;
  }

  async describe(): Promise<void> {}

  async commit(): Promise<void> {}

  async start(): Promise<void> {
    this.runState = 'running';
  }

  async discard(): Promise<void> {}
}
