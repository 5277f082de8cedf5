/** A TCP link that is cut at a place of the stream: at a byte counted from its beginning, or from a landmark that only the run itself can tell. */
import assert from 'node:assert/strict';
import type { Address } from '../../src/transport/index.ts';
import { type CutDirection, type CutProxy, cutProxy } from '../support/cut-proxy.ts';
import type { Row } from './campaign.ts';
import type { Random } from './random.ts';
import { type Landmark, StreamTap } from './stream-tap.ts';

export interface Cut {
  readonly direction: CutDirection;
  /** The stream (`toTarget`) is cut `plus` bytes behind this landmark; what the destination says (`toClient`) always counts from its start. */
  readonly from: 'start' | Landmark;
  readonly plus: number;
  /** `blackhole`: nothing passes any more, and after `resetAfterMs` a reset. */
  readonly how: 'end' | 'reset' | 'blackhole';
  readonly resetAfterMs: number;
}

/** The same on a multifd channel, which has no landmarks: `after` bytes from its start. */
export interface ChannelCut {
  readonly channel: number;
  readonly after: number;
  readonly how: Cut['how'];
  readonly resetAfterMs: number;
}

/** Where an uncut run has its landmarks, and how much the destination says; bytes. */
export type Measured = Readonly<Record<Landmark, number>> & { readonly said: number };

const SETUP_BYTES = 1_500;
/** In the initial packet of a multifd channel, which comes first and alone. */
const CHANNEL_ID_AT = 24;
const BLACKHOLE_MS = [50, 400] as const;
/** Longer than a destination waits for a description that may have been suppressed. */
const LONG_BLACKHOLE_MS = 11_000;

/**
 * A place where much can go wrong: the first bytes, anywhere in the rounds, the rest of RAM with the guest stopped, the devices, the last
 * bytes around EOF and description, or one of the few bytes that come back.
 */
export function drawCut(random: Random, measured: Measured): Cut {
  const how = random.weighted([
    [7, 'end'],
    [7, 'reset'],
    [6, 'blackhole'],
  ] as const);
  const place = random.weighted([
    [15, { from: 'start', max: SETUP_BYTES }],
    [25, { from: 'start', max: measured.end }],
    [12, { from: 'end', max: Math.max(8, measured['ram-end'] - measured.end) }],
    [15, { from: 'ram-end', max: measured.eof - measured['ram-end'] }],
    [15, { from: 'eof', max: measured.total - measured.eof }],
    [18, { from: 'start', max: measured.said, back: true }],
  ] as const);
  const long = place.from === 'eof' && random.chance(0.25);
  const resetAfterMs = how !== 'blackhole' ? 0 : long ? LONG_BLACKHOLE_MS : random.int(...BLACKHOLE_MS);
  const direction = 'back' in place ? 'toClient' : 'toTarget';
  return { direction, from: place.from, plus: random.int(0, place.max), how, resetAfterMs };
}

type TcpAddress = Address & { kind: 'tcp' };

export class CutLink {
  /** What the source has sent, whether it passed or not. */
  readonly tap: StreamTap;
  readonly #proxy: CutProxy;
  #cutAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(proxy: CutProxy, cut: Cut | ChannelCut | undefined) {
    this.#proxy = proxy;
    const mainCut = cut !== undefined && 'from' in cut ? cut : undefined;
    const channelCut = cut !== undefined && 'channel' in cut ? cut : undefined;
    const arm = (base: number) => {
      if (mainCut === undefined) return;
      proxy.arm({ direction: mainCut.direction, after: base + mainCut.plus, how: mainCut.how });
    };
    this.tap = new StreamTap((landmark, offset) => {
      if (mainCut?.from === landmark) arm(offset);
    });
    const known = new Set<number>();
    let cutConnection: number | undefined;
    proxy.onBytes = (direction, bytes, connection) => {
      if (direction !== 'toTarget') return;
      // A source connects main first.
      if (connection === 0) return this.tap.feed(bytes);
      if (known.has(connection)) return;
      known.add(connection);
      if (channelCut === undefined || bytes[CHANNEL_ID_AT] !== channelCut.channel) return;
      proxy.arm({ direction, after: channelCut.after, how: channelCut.how, connection });
      cutConnection = connection;
    };
    if (mainCut?.from === 'start') arm(0);
    void proxy.cut.then(() => {
      this.#cutAt = channelCut?.after ?? proxy.passed[mainCut!.direction];
      if (cut?.how === 'blackhole')
        this.#timer = setTimeout(() => proxy.sever('reset', cutConnection), cut.resetAfterMs);
    });
  }

  static async open(target: Address, cut: Cut | ChannelCut | undefined): Promise<CutLink> {
    return new CutLink(await cutProxy(target as TcpAddress), cut);
  }

  get address(): TcpAddress {
    return this.#proxy.address as TcpAddress;
  }

  /** Bytes that had passed in the cut direction (of the cut channel) when the cut was made; undefined if the stream ended before. */
  get cutAt(): number | undefined {
    return this.#cutAt;
  }

  /** Bytes passed to the source. */
  get said(): number {
    return this.#proxy.passed.toClient;
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#proxy.close();
  }
}

/** What a run that was not cut says about the places of the next ones. */
export function measuredBy({ tap, said }: CutLink): Measured {
  const { end, eof, total } = tap.landmarks;
  const ramEnd = tap.landmarks['ram-end'];
  assert(end !== undefined && ramEnd !== undefined && eof !== undefined && total !== undefined);
  assert(end < ramEnd && ramEnd < eof && eof < total && said > 0, 'landmarks in order');
  return { end, 'ram-end': ramEnd, eof, total, said };
}

type Landmarks = Partial<Record<Landmark, number>>;

/** Where a link was cut, and how. */
export function cutRow(cut: Cut, cutAt: number, landmarks: Landmarks): Row {
  return { place: partOf(cut, cutAt, landmarks), how: cut.how, at: `byte ${cutAt}` };
}

/** Which part of the stream the cut lay in, by the landmarks of that run. */
function partOf(cut: Cut, cutAt: number, landmarks: Landmarks): string {
  if (cut.direction === 'toClient') return 'return path';
  const { end, eof } = landmarks;
  const ramEnd = landmarks['ram-end'];
  if (cutAt <= SETUP_BYTES) return 'setup';
  if (end === undefined || cutAt < end) return 'rounds';
  if (ramEnd === undefined || cutAt < ramEnd) return 'switchover RAM';
  if (eof === undefined || cutAt < eof) return 'devices';
  return cutAt === eof ? 'before EOF' : 'EOF, description';
}
