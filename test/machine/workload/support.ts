/** What the workload's tests share. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { newBitmap, nextSetBit } from '../../../src/base/index.ts';
import {
  createWorkload,
  type DirtyLog,
  type PageWindow,
  type RamSink,
  type SavedDevices,
  type WorkloadMachine,
  type WorkloadOptions,
} from '../../../src/machine/index.ts';
import type { SectionHeader } from '../../../src/wire/index.ts';

export const PAGE = 4096;
export const MIB = 1024 * 1024;

/** A small machine that ends with the test. */
export async function machineFor(t: TestContext, options: Partial<WorkloadOptions> = {}): Promise<WorkloadMachine> {
  const machine = await createWorkload({ ram: 2 * MIB, vcpus: 2, dirtyRate: 'max', ...options });
  t.after(() => machine.dispose());
  return machine;
}

/** Resolves when the guest has done `count` more operations. */
export async function operations(machine: WorkloadMachine, count: number, deadlineMs = 20_000): Promise<void> {
  const goal = machine.statistics.operations + count;
  const deadline = performance.now() + deadlineMs;
  while (machine.statistics.operations < goal) {
    assert.ok(
      performance.now() < deadline,
      `${machine.statistics.operations} of ${goal} operations in ${deadlineMs} ms`,
    );
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Memory with a dirty log, as a migration sees it. */
export interface LoggedMemory {
  readonly ram: readonly { readonly index: number; readonly usedLength: number }[];
  window(block: number, page: number): PageWindow;
  readonly dirtyLog: Pick<DirtyLog, 'harvest'> | undefined;
}

/** A second memory that is kept up by copying what the log reports, and what a migration does with it. */
export class Copy {
  readonly #from: LoggedMemory;
  readonly #blocks: { readonly bytes: Buffer; readonly dirty: Uint32Array }[];

  constructor(from: LoggedMemory) {
    this.#from = from;
    this.#blocks = from.ram.map(({ usedLength }) => ({
      bytes: Buffer.alloc(usedLength),
      dirty: newBitmap(usedLength / PAGE),
    }));
  }

  all(): void {
    for (const { index, usedLength } of this.#from.ram) {
      for (let page = 0; page < usedLength / PAGE; page++) this.#page(index, page);
    }
  }

  /** Harvests and copies; returns how many pages. */
  round(): number {
    let copied = 0;
    for (const { index, usedLength } of this.#from.ram) {
      const { dirty } = this.#blocks[index]!;
      const added = this.#from.dirtyLog!.harvest(index, dirty);
      const pageCount = usedLength / PAGE;
      let seen = 0;
      for (let page = nextSetBit(dirty, 0, pageCount); page >= 0; page = nextSetBit(dirty, page + 1, pageCount)) {
        this.#page(index, page);
        seen++;
      }
      assert.equal(added, seen, 'the harvest counts the bits it sets');
      dirty.fill(0);
      copied += seen;
    }
    return copied;
  }

  /** Pages that are not as the machine has them. */
  stale(): string[] {
    return this.#from.ram.flatMap(({ index, usedLength }) =>
      Array.from({ length: usedLength / PAGE }, (_, page) => page)
        .filter((page) => this.#where(index, page).compare(this.#own(index, page)) !== 0)
        .map((page) => `${index}/${page}`),
    );
  }

  #page(block: number, page: number): void {
    this.#where(block, page).copy(this.#own(block, page));
  }

  #own(block: number, page: number): Buffer {
    return this.#blocks[block]!.bytes.subarray(page * PAGE, (page + 1) * PAGE);
  }

  #where(block: number, page: number): Buffer {
    const window = this.#from.window(block, page);
    const at = (page - window.firstPage) * PAGE;
    return window.bytes.subarray(at, at + PAGE);
  }
}

/** Sends all RAM of a stopped machine, zero pages as such. */
export function sendRam(source: WorkloadMachine, sink: RamSink): void {
  const zero = Buffer.alloc(PAGE);
  for (const { index, usedLength } of source.ram) {
    for (let page = 0; page < usedLength / PAGE; page++) {
      const { bytes, firstPage } = source.window(index, page);
      const at = (page - firstPage) * PAGE;
      if (zero.compare(bytes, at, at + PAGE) === 0) sink.zero(index, page * PAGE);
      else sink.page(index, page * PAGE, bytes, at);
    }
  }
}

export function headers({ sections }: SavedDevices): { readonly header: SectionHeader; readonly body: Buffer }[] {
  return sections.map(({ idstr, instance, version, body }, index) => ({
    header: { kind: 'full', id: index + 1, idstr, instance, version },
    body: Buffer.from(body),
  }));
}

export async function loadDevices(into: WorkloadMachine, saved: SavedDevices): Promise<void> {
  for (const { header, body } of headers(saved)) await into.loadDevice(header, body);
  await into.describe(saved.description ?? '');
}

/** A whole stop-and-copy migration within the process; the source ends in postmigrate. */
export async function move(source: WorkloadMachine, destination: WorkloadMachine): Promise<void> {
  const sink = await destination.prepareRam(source.ram, { ignoreShared: false });
  await source.stop('finish-migrate');
  sendRam(source, sink);
  await loadDevices(destination, await source.saveDevices());
  await destination.commit();
  await destination.start();
  source.setRunState('postmigrate');
}

export async function assertVerified(machine: WorkloadMachine): Promise<void> {
  const verdict = await machine.verify();
  assert.deepEqual({ bad: verdict.bad, registersBad: verdict.registersBad }, { bad: [], registersBad: [] });
  assert.equal(verdict.pagesChecked, machine.ram.reduce((sum, { usedLength }) => sum + usedLength, 0) / PAGE);
}
