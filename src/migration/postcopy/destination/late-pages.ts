import { nowNs, pageKey } from '../../../base/index.ts';
import type { DestinationMachine, IncomingRam, MissingRam, PageFault } from '../../../machine/index.ts';
import type { AnnouncedBlock, ReturnPathMessage } from '../../../wire/index.ts';
import { mismatch, unsupported } from '../../errors.ts';
import { Blocktime, type BlocktimeFigures } from './blocktime.ts';
import { HostPageSink } from './host-page-sink.ts';
import { PageRequests } from './page-requests.ts';
import { ReceivedPages } from './received-pages.ts';

/** The host pages that POSTCOPY_ADVISE speaks of, bytes. */
export interface AdvisedPages {
  readonly summary: bigint;
  readonly target: bigint;
}

export interface LatePagesParts {
  readonly machine: DestinationMachine;
  readonly ram: IncomingRam;
  readonly blocks: readonly AnnouncedBlock[];
  readonly advised: AdvisedPages;
  /** Capability postcopy-blocktime. */
  readonly blocktime: boolean;
  /** Puts a message on the return path; never throws. */
  readonly say: (message: ReturnPathMessage) => void;
}

/** The pages that are not here when the guest is: which they are, who waits for them, and their way into the machine. */
export class LatePages {
  readonly received: ReceivedPages;
  readonly requests: PageRequests;
  readonly #parts: LatePagesParts;
  readonly #missing: MissingRam;
  readonly #blocktime: Blocktime | undefined;
  #whole: () => void = () => {};

  /** Throws MIGRATION_MISMATCH, MIGRATION_UNSUPPORTED. */
  constructor(parts: LatePagesParts) {
    const { machine, blocks, advised, blocktime, say } = parts;
    const { targetPageSize } = machine;
    this.#parts = parts;
    if (machine.missingRam === undefined) {
      const devices = (machine.besideDevices ?? []).map(({ idstr }) => idstr).join(', ');
      throw unsupported(`postcopy into a machine with ${devices}, which would write to memory that is not there yet,`);
    }
    this.#missing = machine.missingRam();
    const { pageSizes, vcpuCount } = this.#missing;
    checkPages(advised, pageSizes, targetPageSize);
    const sized = blocks.map(({ idstr, usedLength }, i) => ({ idstr, usedLength, pageSize: pageSizes[i]! }));
    this.received = new ReceivedPages(sized, targetPageSize);
    this.requests = new PageRequests(this.received, targetPageSize, say);
    if (blocktime) this.#blocktime = new Blocktime(vcpuCount);
  }

  /** Whether the machine runs before all of its pages are here. */
  get runsEarly(): boolean {
    return this.#missing.runsEarly;
  }

  get figures(): BlocktimeFigures | undefined {
    return this.#blocktime?.figures;
  }

  /** POSTCOPY_RAM_DISCARD. Throws MIGRATION_DISCARD. */
  discard(idstr: string, ranges: readonly { readonly start: number; readonly length: number }[]): void {
    for (const { start, length } of ranges) {
      const { block, page, count } = this.received.discard(idstr, start, length);
      this.#missing.drop(block, page, count);
    }
  }

  /** From now on pages are asked for. */
  async begin(): Promise<void> {
    await this.#missing.begin((fault) => this.#fault(fault));
    this.requests.open();
  }

  /** All pages are here. */
  async end(): Promise<void> {
    await this.#missing.end();
  }

  /** Where pages of a channel go; `channel` is its name. */
  sink(channel: string): HostPageSink {
    const { ram, machine } = this.#parts;
    const { targetPageSize } = machine;
    const placed = (block: number, page: number) => this.#placed(block, page);
    return new HostPageSink({ channel, ram, received: this.received, targetPageSize, placed });
  }

  /** Resolves when none is missing any more. */
  async whole(): Promise<void> {
    if (this.received.missing === 0) return;
    await new Promise<void>((resolve) => {
      this.#whole = resolve;
    });
  }

  #fault({ vcpu, block, page, sinceNs }: PageFault): void {
    if (this.received.has(block, page)) return;
    const { hostPages } = this.received.blocks[block]!;
    this.#blocktime?.begin(vcpu, pageKey(block, page - (page % hostPages)), sinceNs);
    this.requests.want(block, page);
  }

  #placed(block: number, page: number): void {
    const { hostPages } = this.received.blocks[block]!;
    this.#missing.place(block, page, hostPages);
    this.requests.placed(block, page);
    this.#blocktime?.end(pageKey(block, page), nowNs());
    if (this.received.missing === 0) this.#whole();
  }
}

/** Both must be exactly ours: what is dropped and placed is a whole host page on both sides (qemu-wire 1.5). */
function checkPages({ summary, target }: AdvisedPages, pageSizes: readonly number[], targetPageSize: number): void {
  if (target !== BigInt(targetPageSize)) throw mismatch('target page size', String(targetPageSize), String(target));
  const own = pageSizes.reduce((sum, size) => sum | BigInt(size), 0n);
  if (summary !== own) throw mismatch('host page sizes', `0x${own.toString(16)}`, `0x${summary.toString(16)}`);
}
