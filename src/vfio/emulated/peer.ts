/**
 * Writes from device to device. A VF counts what it has sent to its peer, and finds in its own mailbox what has come from there. The
 * counts are part of the devices' states: if two devices have moved and the counts differ, a write was lost between two stops.
 *
 *     mailbox    int32 words: OPEN (the device may be written to), RECEIVED, LATE (came when it was stopped)
 */
const MailboxWord = { OPEN: 0, RECEIVED: 1, LATE: 2 } as const;

export class Peer {
  readonly mailbox = new SharedArrayBuffer(16);
  readonly #own = new Int32Array(this.mailbox);
  #theirs: Int32Array | undefined;
  sent = 0;

  get received(): number {
    return Atomics.load(this.#own, MailboxWord.RECEIVED);
  }

  get late(): number {
    return Atomics.load(this.#own, MailboxWord.LATE);
  }

  attach(mailbox: SharedArrayBuffer | undefined): void {
    this.#theirs = mailbox === undefined ? undefined : new Int32Array(mailbox);
  }

  /** Whether this device may be written to. */
  open(open: boolean): void {
    Atomics.store(this.#own, MailboxWord.OPEN, open ? 1 : 0);
  }

  send(count: number): void {
    const theirs = this.#theirs;
    if (theirs === undefined || count === 0) return;
    const open = Atomics.load(theirs, MailboxWord.OPEN) === 1;
    Atomics.add(theirs, open ? MailboxWord.RECEIVED : MailboxWord.LATE, count);
    this.sent += count;
  }

  /** Counts of a device that has arrived, or of a fresh one. */
  restart(sent: number, received: number): void {
    this.sent = sent;
    Atomics.store(this.#own, MailboxWord.RECEIVED, received);
    Atomics.store(this.#own, MailboxWord.LATE, 0);
  }
}
