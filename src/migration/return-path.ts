/** What two vmferrys say to each other by numbers that mean nothing to a QEMU. */
import type { LoadCost } from '../machine/index.ts';

/**
 * Value of SHUT by which a vmferry destination says: failed, and the guest was never started here. Any other value but 0 only says
 * that something failed (QEMU sends 1, and may have started its guest by then: qemu-wire fact 5).
 */
export const SHUT_NEVER_STARTED = 0x0fe2_2f00;
/**
 * The first PING of a vmferry source whose machine has devices. A vmferry destination answers with PONG_VMFERRY in front of the PONG that is due, and
 * with the latter the source knows whom it talks to. Nobody else minds: PINGs have any value, and QEMU's destination says back what it hears.
 */
export const PING_HELLO = 0x0fe2_2f02;
export const PONG_VMFERRY = 0x0fe2_2f03;
/** To a vmferry destination: what does it cost to load the devices? It answers with `loadCostWords`, and then with this. */
export const PING_LOAD_COST = 0x0fe2_2f04;
/** To anyone: has all this arrived? */
export const PING_BURST = 0x0fe2_2f05;
/** The same of a postcopy's pages, again and again: the answers come in the order of the questions. */
export const PING_ARRIVED = 0x0fe2_2f06;
/** To anyone: who connected before this was asked has been looked at. */
export const PING_CONNECTED = 0x0fe2_2f07;

/** 12 bits of what is said, 20 bits of number. */
const WORD_BITS = 20;
const NUMBER_MAX = 2 ** WORD_BITS - 1;
const LOAD_MS = 0xfe3;
const LOAD_RATE = 0xfe4;
/** Bytes a ms are told in this unit; NUMBER_MAX: nothing is known. */
const RATE_UNIT = 1024;

/** Values of PONG; ms first. */
export function loadCostWords({ ms, bytesPerMs }: LoadCost): readonly number[] {
  const rate = Number.isFinite(bytesPerMs) ? Math.max(1, bytesPerMs / RATE_UNIT) : NUMBER_MAX;
  return [wordOf(LOAD_MS, Math.ceil(ms)), wordOf(LOAD_RATE, Math.floor(rate))];
}

/** The part of a load cost that a PONG says; undefined: it says something else. */
export function loadCostPart(word: number): Partial<LoadCost> | undefined {
  const number = word & NUMBER_MAX;
  switch (word >>> WORD_BITS) {
    case LOAD_MS:
      return { ms: number };
    case LOAD_RATE:
      return { bytesPerMs: number === NUMBER_MAX ? Number.POSITIVE_INFINITY : number * RATE_UNIT };
    default:
      return undefined;
  }
}

function wordOf(what: number, number: number): number {
  return what * 2 ** WORD_BITS + Math.min(Math.max(number, 0), NUMBER_MAX);
}
