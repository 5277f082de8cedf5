/** The source of a postcopy against a destination by script: what is sent in which order, and where the guest is after which failure. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain, Reader, Writer } from '../../../src/base/index.ts';
import { createWorkload, type WorkloadMachine, type WorkloadOptions } from '../../../src/machine/index.ts';
import {
  type MigrationStatus,
  OutgoingMigration,
  type OutgoingResult,
  type Route,
} from '../../../src/migration/index.ts';
import { PING_ARRIVED } from '../../../src/migration/return-path.ts';
import type { Settings } from '../../../src/settings/index.ts';
import type { Channel, Connection } from '../../../src/transport/index.ts';
import {
  decodeHandshake,
  decodePreemptInitial,
  encodeHandshake,
  PREEMPT_INITIAL_BYTES,
} from '../../../src/wire/index.ts';
import { type MemoryCut, memoryPair } from '../../support/memory-channel.ts';
import { testSettings } from '../../support/move.ts';
import { PageLog, readUrgent, ScriptedPostcopy } from '../../support/scripted-postcopy.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const LOADED = 0x42;
const SHUT_NEVER_STARTED = 0x0fe2_2f00;

interface After {
  after(f: () => Promise<void>): void;
}

interface Play {
  readonly machine: WorkloadMachine;
  readonly migration: OutgoingMigration;
  readonly peer: ScriptedPostcopy;
  readonly states: readonly MigrationStatus[];
  readonly result: Promise<OutgoingResult>;
  /** The preempt channels that the source has made, our ends. */
  readonly urgent: Channel[];
  /** Resolves when the source is in that state; `again`: when it comes into it from now on. */
  reaches(state: MigrationStatus, again?: 'again'): Promise<void>;
}

interface PlayOptions {
  readonly machine?: Partial<WorkloadOptions>;
  readonly settings?: (settings: Settings) => void;
  /** Postcopy is asked for before the migration begins; default true. */
  readonly atOnce?: boolean;
  readonly cut?: MemoryCut;
  /** The destination answers the first PING by itself; default true. */
  readonly greets?: boolean;
}

const POSTCOPY = [{ capability: 'postcopy-ram', state: true }] as const;
const PREEMPT = [...POSTCOPY, { capability: 'postcopy-preempt', state: true }] as const;

async function play(t: After, options: PlayOptions = {}): Promise<Play> {
  const machine = await createWorkload({ ram: 4 * MIB, vcpus: 1, dirtyRate: 1e6, ...options.machine });
  t.after(() => machine.dispose());
  await machine.resume();
  const [ours, theirs] = memoryPair(options.cut === undefined ? {} : { cutAfter: options.cut });
  const states: MigrationStatus[] = [];
  const waiters = new Map<MigrationStatus, () => void>();
  const urgent: Channel[] = [];
  const migration = new OutgoingMigration({
    machine,
    settings: testSettings((settings) => {
      settings.setCapabilities(POSTCOPY);
      options.settings?.(settings);
    }),
    connect: async () => ours,
    dial: preemptOf(urgent),
    returnPath: () => true,
    observer: {
      status: (status) => {
        states.push(status);
        waiters.get(status)?.();
      },
    },
  });
  if (options.atOnce !== false) migration.startPostcopy();
  const peer = new ScriptedPostcopy(theirs, { greets: options.greets ?? true });
  const reaches = (state: MigrationStatus, again?: 'again') =>
    new Promise<void>((resolve) => {
      if (states.at(-1) === state && again === undefined) resolve();
      else waiters.set(state, resolve);
    });
  return { machine, migration, peer, states, result: migration.run(), urgent, reaches };
}

/** The same over another pair of channels; the script reads on from there. */
function anotherRoute({ peer, urgent }: Play): Route {
  const [ours, theirs] = memoryPair({ name: 'again' });
  return {
    connect: async () => {
      peer.resume(theirs);
      return ours;
    },
    dial: preemptOf(urgent),
  };
}

/** Makes preempt channels, whose other ends are in `urgent`. */
function preemptOf(urgent: Channel[]): NonNullable<Route['dial']> {
  return async () => {
    const [ours, theirs] = memoryPair({ name: 'preempt' });
    urgent.push(theirs);
    return { channel: () => ours } as unknown as Connection;
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Everything up to the guest that runs. */
async function load(peer: ScriptedPostcopy): Promise<void> {
  await peer.until((event) => event.kind === 'command' && event.command.name === 'POSTCOPY_RUN');
  await peer.say({ type: 'PONG', value: 3 }, { type: 'PONG', value: LOADED });
}

/** The rest, and a word that all is there. */
async function finish(peer: ScriptedPostcopy): Promise<void> {
  await peer.until((event) => event.kind === 'eof');
  await peer.say({ type: 'SHUT', value: 0 });
}

/** Every page is what the stopped source has. */
function assertSame(machine: WorkloadMachine, pages: PageLog): void {
  assert.equal(pages.missing, 0);
  for (const [index, block] of pages.blocks.entries()) {
    const own = machine.ram.find(({ idstr }) => idstr === block.idstr)!;
    for (let at = 0; at < block.usedLength; at += PAGE) {
      const window = machine.window(own.index, at / PAGE);
      const start = at - window.firstPage * PAGE;
      const same = window.bytes.compare(pages.memory[index]!, at, at + PAGE, start, start + PAGE) === 0;
      assert.ok(same, `${block.idstr}: page ${at / PAGE} differs`);
    }
  }
}

const failure = (result: OutgoingResult) => (result.status === 'completed' ? 'completed' : explain(result.error));

test('the sequence: advise, precopy, discards, package, pages, END, EOF, SHUT', async (t) => {
  const one = await play(t, { machine: { machineType: 'workload-10.0' } });
  await load(one.peer);
  await finish(one.peer);
  const result = await one.result;
  assert.equal(result.status, 'completed', failure(result));
  assert.deepEqual(one.states, [
    ...['setup', 'active', 'device', 'postcopy-device', 'postcopy-active', 'completed'],
  ] as MigrationStatus[]);
  assert.equal(one.machine.runState, 'postmigrate');
  assertSame(one.machine, one.peer.pages);

  const { seen } = one.peer;
  const parts = (list: readonly string[]) =>
    list.filter((name) => name !== 'ram part' && name !== `PING ${PING_ARRIVED}`);
  const isDiscard = (name: string) => name === 'POSTCOPY_RAM_DISCARD';
  const order = parts(seen).filter((name) => !isDiscard(name) && name !== 'device');
  assert.deepEqual(order, [
    ...['OPEN_RETURN_PATH', 'PING 1', 'POSTCOPY_ADVISE', 'ram start', 'SWITCHOVER_START', 'PING 2', 'PACKAGED'],
    ...['POSTCOPY_LISTEN', 'PING 3', `PING ${LOADED}`, 'POSTCOPY_RUN', 'PING 4', 'ram end', 'eof'],
  ]);
  assert.ok(seen.indexOf('device') > seen.indexOf('POSTCOPY_LISTEN'));
  assert.ok(seen.lastIndexOf('device') < seen.indexOf('PING 3'));
  const discards = [...seen.keys()].filter((at) => isDiscard(seen[at]!));
  assert.ok(discards.length > 0);
  assert.ok(discards.every((at) => at > seen.indexOf('SWITCHOVER_START') && at < seen.indexOf('PING 2')));
  // Nothing was sent before: every page was discarded and sent once.
  assert.equal(new Set(one.peer.pages.order).size, one.peer.pages.order.length);
  const { ram } = result.info;
  assert.equal(ram!['precopy-bytes'], 0);
  assert.ok(ram!['postcopy-bytes'] > 0 && ram!.remaining === 0);
});

test('an older machine type gets no SWITCHOVER_START', async (t) => {
  const one = await play(t, { machine: { machineType: 'workload-7.2' } });
  await load(one.peer);
  await finish(one.peer);
  assert.equal((await one.result).status, 'completed');
  assert.ok(!one.peer.seen.includes('SWITCHOVER_START'));
});

test('precopy for a while: only what is dirty then is discarded and sent again', async (t) => {
  // Slow enough for the first round to be under way when postcopy is asked for.
  const one = await play(t, { atOnce: false, settings: (s) => s.setParameters({ 'max-bandwidth': 4 * MIB }) });
  await one.peer.until(({ kind }) => kind === 'ram-batch');
  one.migration.startPostcopy();
  await load(one.peer);
  const { missing } = one.peer.pages;
  await finish(one.peer);
  assert.equal((await one.result).status, 'completed');
  assert.ok(missing > 0 && missing < (5.25 * MIB) / PAGE, `${missing} pages were discarded`);
  assertSame(one.machine, one.peer.pages);
});

test('postcopy that is never asked for is a precopy', async (t) => {
  const one = await play(t, { atOnce: false });
  await one.peer.until(({ kind }) => kind === 'section-begin');
  const event = await one.peer.until(
    (event) => event.kind === 'command' && event.command.name === 'PING' && event.command.value !== 1,
  );
  assert(event.kind === 'command' && event.command.name === 'PING');
  await one.peer.say({ type: 'PONG', value: event.command.value });
  await one.peer.until(({ kind }) => kind === 'description');
  await one.peer.say({ type: 'SHUT', value: 0 });
  assert.equal((await one.result).status, 'completed');
  assert.ok(one.peer.seen.includes('POSTCOPY_ADVISE') && !one.peer.seen.includes('POSTCOPY_LISTEN'));
});

test('END waits for the word that the devices are loaded', async (t) => {
  const one = await play(t);
  await one.peer.untilPing(4);
  let ended = false;
  const end = one.peer
    .until(({ kind }) => kind === 'eof')
    .then(() => {
      ended = true;
    });
  while (one.peer.pages.missing > 0) await turn();
  for (let turns = 0; turns < 200; turns++) await turn();
  assert.equal(ended, false);
  assert.equal(one.migration.status, 'postcopy-device');
  await one.peer.say({ type: 'PONG', value: LOADED });
  await end;
  await one.peer.say({ type: 'SHUT', value: 0 });
  assert.equal((await one.result).status, 'completed');
});

/** The background as good as stands still: what comes was asked for. */
const CRAWL = (settings: Settings) => settings.setParameters({ 'max-postcopy-bandwidth': 1 });

test('requested pages come first, each once, on the main channel', async (t) => {
  const one = await play(t, { settings: CRAWL });
  await load(one.peer);
  const ram = one.peer.pages.blocks[0]!.idstr;
  const rounds = one.peer.pages;
  const before = rounds.order.length;
  const page = (n: number) => ({ start: n * PAGE, length: PAGE });
  await one.peer.say(
    { type: 'REQ_PAGES_ID', block: ram, ...page(700) },
    { type: 'REQ_PAGES', ...page(300) },
    { type: 'REQ_PAGES', ...page(700) },
    { type: 'REQ_PAGES', ...page(301) },
  );
  await one.peer.until(() => rounds.has(0, 301));
  assert.deepEqual(
    rounds.order.filter((name) => ['0/700', '0/300', '0/301'].includes(name)),
    ['0/700', '0/300', '0/301'],
  );
  // At most one piece of the background went out meanwhile.
  assert.ok(rounds.order.length - before < 64, `${rounds.order.length - before} pages`);
  assert.equal(one.migration.info().ram!['postcopy-requests'], 4);
  one.migration.abandon();
  assert.equal((await one.result).status, 'failed');
});

for (const version of ['7.2', '10.0'] as const) {
  const early = version === '7.2';
  test(`preempt, machine type ${version}: requested pages come on a channel of their own`, async (t) => {
    const one = await play(t, {
      machine: { machineType: `workload-${version}` },
      settings: (s) => {
        s.setCapabilities(PREEMPT);
        CRAWL(s);
      },
      greets: early,
    });
    await one.peer.until(({ kind }) => kind === 'ram-blocks');
    assert.equal(one.urgent.length, early ? 1 : 0, 'when the channel is made');
    if (!early) await one.peer.say({ type: 'PONG', value: 1 });
    await load(one.peer);
    assert.equal(one.urgent.length, 1);
    const urgentPages = new PageLog();
    urgentPages.begin(one.peer.pages.blocks);
    const urgentEnd = readUrgent(one.urgent[0]!, urgentPages);
    const block = one.peer.pages.blocks[0]!.idstr;
    await one.peer.say({ type: 'REQ_PAGES_ID', block, start: 900 * PAGE, length: 2 * PAGE });
    while (urgentPages.order.length < 2) await turn();
    assert.deepEqual(urgentPages.order, ['0/900', '0/901']);
    one.migration.abandon();
    await assert.doesNotReject(urgentEnd.catch(() => {}));
    assert.equal((await one.result).status, 'failed');
  });
}

const HUGE_PAGES = (2 * MIB) / PAGE;

for (const breaks of [true, false]) {
  test(`a huge page of the background is ${breaks ? '' : 'not '}broken off for a requested one`, async (t) => {
    const settings: Settings[] = [];
    const one = await play(t, {
      machine: { ram: 8 * MIB, hostPage: 2 * MIB },
      settings: (s) => {
        s.setCapabilities(PREEMPT);
        s.setParameters({ 'x-postcopy-preempt-break-huge': breaks });
        CRAWL(s);
        settings.push(s);
      },
    });
    await one.peer.until(({ kind }) => kind === 'ram-blocks');
    await load(one.peer);
    const urgentPages = new PageLog();
    urgentPages.begin(one.peer.pages.blocks);
    const { order } = one.peer.pages;
    const urgentEnd = readUrgent(one.urgent[0]!, urgentPages);
    const background = one.peer.until(({ kind }) => kind === 'eof');
    while (order.length === 0) await turn();
    const block = one.peer.pages.blocks.findIndex(({ usedLength }) => usedLength === 8 * MIB);
    const { idstr } = one.peer.pages.blocks[block]!;
    assert.equal(order[0], `${block}/0`);
    await one.peer.say({ type: 'REQ_PAGES_ID', block: idstr, start: 4 * MIB, length: 2 * MIB });
    if (breaks) {
      while (urgentPages.order.length < HUGE_PAGES) await turn();
      assert.ok(order.length < HUGE_PAGES, `${order.length} pages of the background came before`);
    } else {
      for (let turns = 0; turns < 500; turns++) await turn();
      assert.deepEqual(urgentPages.order, []);
    }
    settings[0]!.setParameters({ 'max-postcopy-bandwidth': 0 });
    await background;
    await one.peer.say({ type: 'SHUT', value: 0 });
    const result = await one.result;
    assert.equal(result.status, 'completed', failure(result));
    await urgentEnd.catch(() => {});
    const pagesFrom = (first: number) => Array.from({ length: HUGE_PAGES }, (_, i) => `${block}/${first + i}`);
    assert.deepEqual(urgentPages.order, pagesFrom(2 * HUGE_PAGES));
    // Broken off or not: one host page after another.
    assert.deepEqual(order.slice(0, HUGE_PAGES), pagesFrom(0));
    assert.equal(new Set(order).size, order.length);
    assert.ok(!order.includes(`${block}/${2 * HUGE_PAGES}`));
  });
}

for (const preempt of [true, false]) {
  test(`a huge page of the background that is asked for in its midst goes on at once${preempt ? ', beside preempt channels' : ''}`, async (t) => {
    const one = await play(t, {
      machine: { ram: 8 * MIB, hostPage: 2 * MIB },
      settings: (s) => {
        if (preempt) s.setCapabilities(PREEMPT);
        CRAWL(s);
      },
    });
    await one.peer.until(({ kind }) => kind === 'ram-blocks');
    await one.peer.say({ type: 'PONG', value: 1 });
    await load(one.peer);
    const { order, blocks } = one.peer.pages;
    const background = one.peer.until(({ kind }) => kind === 'eof').catch(() => {});
    while (order.length === 0) await turn();
    const block = blocks.findIndex(({ usedLength }) => usedLength === 8 * MIB);
    const { idstr } = blocks[block]!;
    // Nobody reads the preempt channel: it has something to send all the time.
    if (preempt) await one.peer.say({ type: 'REQ_PAGES_ID', block: idstr, start: 2 * MIB, length: 6 * MIB });
    await one.peer.say({ type: 'REQ_PAGES_ID', block: idstr, start: 0, length: 2 * MIB });
    while (order.length < HUGE_PAGES) await turn();
    assert.deepEqual(
      order.slice(0, HUGE_PAGES),
      Array.from({ length: HUGE_PAGES }, (_, page) => `${block}/${page}`),
    );
    one.migration.abandon();
    assert.equal((await one.result).status, 'failed');
    await background;
  });
}

for (const [told, channels] of [
  [undefined, 1],
  [2, 2],
  [4, 4],
] as const) {
  const waits = channels === 1;
  test(`${channels} preempt channels, as the destination tells of ${told ?? 'none'}: a small page ${waits ? 'waits' : 'does not wait'} for a huge one`, async (t) => {
    const one = await play(t, {
      machine: { hostPage: 2 * MIB },
      settings: (s) => {
        s.setCapabilities([...PREEMPT, { capability: 'x-vmferry-handshake', state: true }]);
        s.setParameters({ 'x-postcopy-preempt-channels': 4 });
        CRAWL(s);
      },
    });
    const parameters = told === undefined ? {} : { 'x-postcopy-preempt-channels': told };
    await answerHello(one.peer.channel, { handshake: 2, parameters, settled: parameters });
    await one.peer.until(({ kind }) => kind === 'ram-blocks');
    await load(one.peer);
    assert.equal(one.urgent.length, channels);
    const { blocks } = one.peer.pages;
    const pages = new PageLog();
    pages.begin(blocks);
    for (const [id, channel] of one.urgent.entries()) {
      // A channel alone begins with its first page.
      if (channels > 1) assert.equal(await announcedBy(channel, channels), id);
      void readUrgent(channel, pages).catch(() => {});
    }
    // Of the first host page a piece has gone in the background.
    await one.peer.say(
      { type: 'REQ_PAGES_ID', block: blocks[0]!.idstr, start: 2 * MIB, length: 2 * MIB },
      { type: 'REQ_PAGES_ID', block: blocks[1]!.idstr, start: 9 * PAGE, length: PAGE },
    );
    while (pages.order.length < 513) await new Promise((resolve) => setImmediate(resolve));
    const place = pages.order.indexOf('1/9');
    if (waits) assert.equal(place, 512);
    else assert.ok(place < 256, `${place} records of the huge page came before it`);
    one.migration.abandon();
    assert.equal((await one.result).status, 'failed');
  });
}

/** Answers the handshake of the source with those facts. */
async function answerHello(channel: Channel, facts: object): Promise<void> {
  const chunk = await channel.read();
  assert(chunk !== null);
  decodeHandshake(new Reader(chunk.bytes.subarray(chunk.start, chunk.end)), 'hello');
  const writer = new Writer(64);
  encodeHandshake(writer, { kind: 'answer', body: Buffer.from(JSON.stringify(facts)) });
  await channel.write(Buffer.from(writer.bytes()));
}

/** Which of so many preempt channels it says it is; no page has been asked for yet. */
async function announcedBy(channel: Channel, channels: number): Promise<number> {
  const chunk = await channel.read();
  assert(chunk !== null && chunk.end - chunk.start === PREEMPT_INITIAL_BYTES);
  return decodePreemptInitial(new Reader(chunk.bytes.subarray(chunk.start, chunk.end)), channels);
}

for (const [channels, capabilities] of [
  [0, POSTCOPY],
  [1, PREEMPT],
] as const) {
  test(`the guest is not stopped before a first PONG, nor ${channels} preempt channels made`, async (t) => {
    const one = await play(t, { settings: (s) => s.setCapabilities(capabilities), greets: false });
    await one.peer.until(({ kind }) => kind === 'ram-blocks');
    for (let turns = 0; turns < 200; turns++) await turn();
    assert.equal(one.urgent.length, 0);
    assert.equal(one.machine.runState, 'running');
    await one.peer.say({ type: 'PONG', value: 1 });
    await load(one.peer);
    assert.equal(one.urgent.length, channels);
    await finish(one.peer);
    assert.equal((await one.result).status, 'completed');
  });
}

// Where the guest is after a failure

test('lost before the package is whole the guest goes on here; lost behind it, nobody can know', async (t) => {
  const whole = await play(t);
  const run = await whole.peer.untilCommand('POSTCOPY_RUN');
  whole.peer.channel.destroy();
  await whole.reaches('postcopy-paused');
  whole.migration.abandon();
  await whole.result;
  // Sizes do not depend on what the guest does, so the next machine's package ends at the same byte.
  for (const before of [1, 4, run.length + 1, 200, 701, run.offset - 100]) {
    const one = await play(t, {
      cut: { aToB: run.offset + run.length - before, how: before % 2 === 0 ? 'end' : 'reset' },
    });
    await one.peer.until(() => false).catch(() => {});
    const committed = before < run.length;
    if (committed) {
      await one.reaches('postcopy-paused');
      assert.equal(one.machine.runState, 'finish-migrate');
      one.migration.abandon();
    }
    const result = await one.result;
    assert.equal(result.status, 'failed', `cut ${before} bytes before the end of the package`);
    assert.equal(one.machine.runState, committed ? 'postmigrate' : 'running');
  }
});

test('a destination whose guest has never run gives it back', async (t) => {
  const one = await play(t);
  await one.peer.untilPing(4);
  await one.peer.say({ type: 'SHUT', value: SHUT_NEVER_STARTED });
  const result = await one.result;
  assert.equal(result.status, 'failed');
  assert.match(failure(result), /SHUT/);
  assert.equal(one.machine.runState, 'running');
});

const PAUSING: readonly [string, (one: Play) => Promise<void>, RegExp][] = [
  ['the connection is lost', async ({ peer }) => peer.channel.destroy(), /closed the connection|connection lost/],
  [
    'a page of no block is asked for',
    ({ peer }) => peer.say({ type: 'REQ_PAGES_ID', block: 'nope', start: 0, length: PAGE }),
    /'nope'.*no such block/,
  ],
  ['a bitmap comes unasked', ({ peer }) => peer.say(...peer.bitmaps()), /RECV_BITMAP.*nobody has asked/],
  ['RESUME_ACK comes unasked', ({ peer }) => peer.say({ type: 'RESUME_ACK', value: 1 }), /RESUME_ACK.*nobody/],
  ['SHUT 0 comes before all is sent', ({ peer }) => peer.say({ type: 'SHUT', value: 0 }), /before everything was sent/],
  ['SHUT 1', ({ peer }) => peer.say({ type: 'SHUT', value: 1 }), /SHUT 1/],
  ['migrate-pause', async ({ migration }) => migration.postcopy.pause(), /migrate-pause/],
];

for (const [name, act, says] of PAUSING) {
  test(`paused, nothing lost, and recovered: ${name}`, async (t) => {
    const one = await play(t, { settings: CRAWL });
    await load(one.peer);
    await one.reaches('postcopy-active');
    const block = one.peer.pages.blocks[0]!.idstr;
    await one.peer.say({ type: 'REQ_PAGES_ID', block, start: 40 * PAGE, length: 9 * PAGE });
    await one.peer.until(() => one.peer.pages.has(0, 48));
    await act(one);
    await one.reaches('postcopy-paused');
    assert.equal(one.machine.runState, 'finish-migrate');
    assert.match(one.migration.info()['error-desc'] ?? '', says);
    assert.equal(one.migration.info()['x-waiting-for'], 'migrate with resume');
    assert.throws(() => one.migration.cancel(), /too late/);

    const there = one.peer.pages.missing;
    one.peer.pages.order.length = 0;
    const route = anotherRoute(one);
    one.migration.postcopy.resume(route);
    await one.reaches('postcopy-recover');
    await one.peer.untilCommand('RECV_BITMAP');
    await one.peer.say(...one.peer.bitmaps());
    await one.peer.untilCommand('POSTCOPY_RESUME');
    assert.equal(one.migration.status, 'postcopy-recover');
    await one.peer.say(
      { type: 'RESUME_ACK', value: 1 },
      { type: 'REQ_PAGES_ID', block, start: 5 * PAGE, length: PAGE },
    );
    await one.peer.until(() => one.peer.pages.has(0, 5));
    const unlimited = await unleash(one);
    const result = await one.result;
    assert.equal(result.status, 'completed', failure(result));
    assert.equal(unlimited, 0);
    assert.equal(one.peer.pages.order.length, there, 'what was not there was sent, and nothing twice');
    assertSame(one.machine, one.peer.pages);
    assert.equal(await one.peer.channel.read(), null, 'the source has ended the connection');
    assert.deepEqual(one.states.slice(-5), [
      ...['postcopy-paused', 'postcopy-recover-setup', 'postcopy-recover', 'postcopy-active', 'completed'],
    ] as MigrationStatus[]);
  });
}

/** Asks for everything that is missing, so that a crawling background does not matter; then the end. */
async function unleash({ peer }: Play): Promise<number> {
  const { pages } = peer;
  for (const [index, { idstr, usedLength }] of pages.blocks.entries()) {
    for (let page = 0; page < usedLength / PAGE; page++) {
      if (!pages.has(index, page))
        await peer.say({ type: 'REQ_PAGES_ID', block: idstr, start: page * PAGE, length: PAGE });
    }
  }
  await peer.until(({ kind }) => kind === 'eof');
  await peer.say({ type: 'SHUT', value: 0 });
  return pages.missing;
}

test('recovery that fails, in every of its steps, is paused again; then it works', async (t) => {
  const one = await play(t, { settings: CRAWL });
  await load(one.peer);
  await one.reaches('postcopy-active');
  one.peer.channel.destroy();
  await one.reaches('postcopy-paused');
  const attempts: readonly [string, Route | undefined, () => Promise<void>, RegExp][] = [
    [
      'nobody there',
      { ...anotherRoute(one), connect: async () => Promise.reject(new Error('nobody there')) },
      async () => {},
      /nobody there/,
    ],
    [
      'lost before the bitmaps',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        one.peer.channel.destroy();
      },
      /closed the connection|connection lost/,
    ],
    [
      'a bitmap of another size',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        const [first] = one.peer.bitmaps();
        assert(first?.type === 'RECV_BITMAP');
        await one.peer.say({ ...first, bitmap: Buffer.alloc(first.bitmap.length + 8) });
      },
      /bytes, not/,
    ],
    [
      'a bitmap twice',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        const [first] = one.peer.bitmaps();
        await one.peer.say(first!, first!);
      },
      /nobody has asked/,
    ],
    [
      'a request before the bitmaps',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        await one.peer.say({ type: 'REQ_PAGES_ID', block: one.peer.pages.blocks[0]!.idstr, start: 0, length: PAGE });
      },
      /before the bitmaps/,
    ],
    [
      'lost before RESUME_ACK',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        await one.peer.say(...one.peer.bitmaps());
        await one.peer.untilCommand('POSTCOPY_RESUME');
        one.peer.channel.destroy();
      },
      /closed the connection|connection lost/,
    ],
    [
      'migrate-pause',
      undefined,
      async () => {
        await one.peer.untilCommand('RECV_BITMAP');
        one.migration.postcopy.pause();
      },
      /migrate-pause/,
    ],
  ];
  for (const [name, route, act, says] of attempts) {
    const paused = one.reaches('postcopy-paused', 'again');
    const connected = one.reaches('postcopy-recover', 'again');
    one.migration.postcopy.resume(route ?? anotherRoute(one));
    assert.throws(() => one.migration.postcopy.resume(anotherRoute(one)), /no paused postcopy/, name);
    if (route === undefined) await connected;
    await act();
    await paused;
    assert.match(one.migration.info()['error-desc'] ?? '', says, name);
  }
  const connected = one.reaches('postcopy-recover', 'again');
  one.migration.postcopy.resume(anotherRoute(one));
  await connected;
  await one.peer.untilCommand('RECV_BITMAP');
  await one.peer.say(...one.peer.bitmaps());
  await one.peer.untilCommand('POSTCOPY_RESUME');
  await one.peer.say({ type: 'RESUME_ACK', value: 1 });
  await unleash(one);
  const result = await one.result;
  assert.equal(result.status, 'completed', failure(result));
  assertSame(one.machine, one.peer.pages);
});

test('what does not fit the state is refused', async (t) => {
  const one = await play(t, {
    atOnce: false,
    settings: (s) => s.setCapabilities([{ capability: 'postcopy-ram', state: false }]),
  });
  assert.throws(() => one.migration.startPostcopy(), /postcopy-ram was not on/);
  assert.throws(() => one.migration.postcopy.pause(), /no postcopy under way/);
  one.migration.cancel();
  assert.equal((await one.result).status, 'cancelled');
  const two = await play(t, { settings: CRAWL });
  await load(two.peer);
  await two.reaches('postcopy-active');
  assert.throws(() => two.migration.postcopy.resume(anotherRoute(two)), /no paused postcopy/);
  two.migration.abandon();
  assert.equal((await two.result).status, 'failed');
  assert.equal(two.machine.runState, 'postmigrate');
});
