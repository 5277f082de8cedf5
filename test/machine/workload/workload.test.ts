import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FerryError } from '../../../src/base/index.ts';
import { PATTERNS, type WorkloadMachine } from '../../../src/machine/index.ts';
import { type DirectSink, parseVmdesc } from '../../../src/wire/index.ts';
import { assertVerified, headers, loadDevices, MIB, machineFor, move, operations, PAGE, sendRam } from './support.ts';

const refused = (code: string) => (error: unknown) => error instanceof FerryError && error.code === code;

for (const pattern of PATTERNS) {
  test(`a machine that runs ${pattern} verifies, moves, runs on and verifies again`, async (t) => {
    const source = await machineFor(t, { pattern, seed: 11, vcpus: 3 });
    const destination = await machineFor(t, { incoming: true, vcpus: 3 });
    assert.equal(source.runState, 'prelaunch');
    await assertVerified(source);
    await source.resume();
    const running = pattern !== 'idle';
    if (running) await operations(source, 5000);
    await move(source, destination);
    assert.equal(source.runState, 'postmigrate');
    assert.equal(destination.runState, 'running');
    if (running) await operations(destination, 5000);
    await destination.stop('paused');
    await assertVerified(destination);
    await assertVerified(source);
    if (running) assert.ok(destination.statistics.operations > source.statistics.operations);
    assert.deepEqual(destination.program, source.program, 'the destination has taken the program over');
    if (running) assert.ok(destination.statistics.lastStopMs > 0, 'the guest has seen that it was stopped');
  });
}

test('two machines send each other the guest twenty times', async (t) => {
  let here = await machineFor(t, { ram: MIB, vcpus: 1, seed: 3 });
  let there = await machineFor(t, { ram: MIB, vcpus: 1, incoming: true });
  await here.resume();
  for (let i = 0; i < 20; i++) {
    await operations(here, 500);
    await move(here, there);
    await here.awaitIncoming();
    assert.equal(here.runState, 'inmigrate');
    [here, there] = [there, here];
  }
  await operations(here, 500);
  await here.stop('paused');
  await assertVerified(here);
});

test('the destination goes on in the state that the migration interrupted', async (t) => {
  for (const state of ['prelaunch', 'paused', 'running'] as const) {
    const source = await machineFor(t, { ram: MIB });
    const destination = await machineFor(t, { ram: MIB, incoming: true });
    if (state !== 'prelaunch') await source.resume();
    if (state === 'paused') await source.stop('paused');
    await move(source, destination);
    assert.equal(destination.runState, state);
    if (state === 'running') await destination.stop('paused');
    assert.equal(
      destination.fingerprint() === source.fingerprint(),
      state !== 'running' || destination.statistics.operations === source.statistics.operations,
    );
    await assertVerified(destination);
  }
});

test('the guest knows how long it stood still', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  await source.resume();
  await operations(source, 1);
  const sink = await destination.prepareRam(source.ram, { ignoreShared: false });
  const before = performance.now();
  await source.stop('finish-migrate');
  const stopped = performance.now();
  sendRam(source, sink);
  await loadDevices(destination, await source.saveDevices());
  await destination.commit();
  await new Promise((resolve) => setTimeout(resolve, 30));
  const starting = performance.now();
  await destination.start();
  await operations(destination, 1);
  const { lastStopMs, longestGapMs, gaps } = destination.statistics;
  assert.ok(lastStopMs >= starting - stopped, `${lastStopMs} ms seen, at least ${starting - stopped} ms`);
  assert.ok(
    lastStopMs <= performance.now() - before,
    `${lastStopMs} ms seen, at most ${performance.now() - before} ms`,
  );
  assert.ok(longestGapMs >= lastStopMs && gaps >= 1);
});

test('shared RAM: blocks in the order asked for, and a zero page that comes last makes zero what threads have put there', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  assert.throws(() => destination.sharedRam(), refused('WORKLOAD_RUN_STATE'));
  const announced = [...source.ram].reverse();
  const sink = await destination.prepareRam(announced, { ignoreShared: false });
  const shared = sink.share();
  assert.ok(shared.kind === 'memory');
  const names = (blocks: readonly { readonly idstr: string }[]) => blocks.map(({ idstr }) => idstr);
  assert.deepEqual(names(shared.blocks), names(announced));
  assert.deepEqual(names(source.sharedRam().blocks), names(source.ram));
  const { memory, byteOffset } = shared.blocks[0]!;
  const bytes = new Uint8Array(memory, byteOffset, 2 * 4096);
  bytes[5000] = 1;
  assert.equal(destination.window(announced[0]!.index, 1).bytes[5000], 1);
  sink.zero(0, 4096);
  assert.equal(Atomics.load(bytes, 5000), 0);
  assert.equal((sink as unknown as DirectSink).fresh(0, 0, 1), undefined, 'nobody else may lay out what threads fill');
});

test('a failed attempt leaves a pristine machine for the next one', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  await source.resume();
  await operations(source, 1000);
  const sink = await destination.prepareRam(source.ram, { ignoreShared: false });
  await source.stop('finish-migrate');
  sendRam(source, sink);
  await destination.loadDevice(
    headers(await source.saveDevices())[0]!.header,
    headers(await source.saveDevices())[0]!.body,
  );
  await destination.discard();
  assert.equal(destination.runState, 'inmigrate');
  await assert.rejects(destination.commit(), refused('WORKLOAD_RUN_STATE'));
  await source.resume();
  await destination.prepareRam(source.ram, { ignoreShared: false });
  for (const { index, usedLength } of destination.ram) {
    const { bytes } = destination.window(index, 0);
    assert.equal(bytes.length, usedLength);
    assert.ok(
      bytes.every((byte) => byte === 0),
      'memory is zero again',
    );
  }
  await destination.discard();
  await move(source, destination);
  await destination.stop('paused');
  await assertVerified(destination);
});

test('discard does nothing to a machine that runs or has run', async (t) => {
  const machine = await machineFor(t, { ram: MIB });
  await machine.resume();
  await machine.discard();
  await operations(machine, 100);
  await machine.stop('paused');
  await machine.discard();
  await assertVerified(machine);
});

test('memory of a machine that waits goes back to the host', async (t) => {
  const size = 256 * MIB;
  const machine = await machineFor(t, { ram: size, fill: 1, vcpus: 1 });
  const full = process.memoryUsage.rss();
  await machine.awaitIncoming();
  const deadline = performance.now() + 10_000;
  while (process.memoryUsage.rss() > full - size * 0.9) {
    assert.ok(performance.now() < deadline, `${full - process.memoryUsage.rss()} bytes given back`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

test('zeros written into fresh memory do not make the host back it', async (t) => {
  const machine = await machineFor(t, { ram: 256 * MIB, vcpus: 1, incoming: true });
  const sink = await machine.prepareRam(machine.ram, { ignoreShared: false });
  const before = process.memoryUsage.rss();
  for (let offset = 0; offset < 256 * MIB; offset += PAGE) sink.zero(0, offset);
  assert.ok(process.memoryUsage.rss() - before < 64 * MIB, `${process.memoryUsage.rss() - before} bytes`);
});

test('the sink writes, zeroes and reads the pages it is told, in the order of the announced blocks', async (t) => {
  const machine = await machineFor(t, { ram: MIB, incoming: true });
  const [ram, vram, rom] = machine.ram;
  const sink = await machine.prepareRam([rom!, vram!, ram!], { ignoreShared: false });
  const from = Buffer.alloc(3 * PAGE, 7);
  sink.page(2, PAGE, from, 100);
  sink.page(0, rom!.usedLength - PAGE, from, 0);
  const into = Buffer.alloc(PAGE);
  sink.read(2, PAGE, into);
  assert.deepEqual(into, from.subarray(0, PAGE));
  assert.ok(
    machine
      .window(0, 0)
      .bytes.subarray(0, PAGE)
      .every((byte) => byte === 0),
  );
  assert.equal(machine.window(0, 0).bytes[PAGE], 7);
  assert.equal(machine.window(2, 0).bytes[rom!.usedLength - 1], 7);
  sink.zero(2, PAGE);
  assert.ok(machine.window(0, 0).bytes.every((byte) => byte === 0));
});

test('windows of a block beyond 4 GiB are its chunks, the same object each time', async (t) => {
  const machine = await machineFor(t, { ram: 5120 * MIB, vcpus: 1, incoming: true });
  const sink = await machine.prepareRam(machine.ram, { ignoreShared: false });
  const last = 5 * 262144 - 1;
  const window = machine.window(0, last);
  assert.deepEqual([window.firstPage, window.pageCount], [4 * 262144, 262144]);
  assert.equal(machine.window(0, 4 * 262144), window);
  assert.equal(machine.window(0, 0).firstPage, 0);
  sink.page(0, last * PAGE, Buffer.alloc(PAGE, 9), 0);
  assert.equal(window.bytes.at(-1), 9);
  assert.equal(machine.window(0, last - 262144).bytes.at(-1), 0);
});

test('RAM blocks that are not those of the machine are refused, with both sizes', async (t) => {
  const machine = await machineFor(t, { ram: 2 * MIB, incoming: true });
  const [ram, vram, rom] = machine.ram;
  const attempts = [
    [{ ...ram!, usedLength: MIB }, vram!, rom!],
    [ram!, vram!],
    [ram!, vram!, rom!, { idstr: 'pc.ram', usedLength: MIB }],
    [ram!, ram!, vram!, rom!],
    [ram!, vram!, { ...rom!, guestAddress: 0 }],
    [ram!, vram!, { ...rom!, pageSize: 2 * MIB }],
  ];
  for (const blocks of attempts) {
    await assert.rejects(machine.prepareRam(blocks, { ignoreShared: false }), refused('WORKLOAD_RAM_BLOCKS'));
  }
  await assert.rejects(
    machine.prepareRam(attempts[0]!, { ignoreShared: false }),
    /workload\.ram: source 1048576 bytes, here 2097152 bytes/,
  );
});

test('a source of another size is refused by its configuration, with both numbers', async (t) => {
  const source = await machineFor(t, { ram: MIB, vcpus: 2 });
  const saved = headers(await source.saveDevices());
  const other = await machineFor(t, { ram: MIB, vcpus: 1, incoming: true });
  await other.prepareRam(source.ram, { ignoreShared: false });
  await assert.rejects(
    other.loadDevice(saved[0]!.header, saved[0]!.body),
    /the source has 2 vCPUs, this machine has 1/,
  );
  const second = saved.find(({ header }) => header.idstr === 'cpu' && header.instance === 1)!;
  await assert.rejects(other.loadDevice(second.header, second.body), refused('WORKLOAD_DEVICE_UNKNOWN'));
});

test('commit names every device whose state has not come', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  await destination.prepareRam(source.ram, { ignoreShared: false });
  for (const { header, body } of headers(await source.saveDevices())) {
    if (header.idstr !== 'cpu' || header.instance !== 1) await destination.loadDevice(header, body);
  }
  await assert.rejects(destination.commit(), (error) => {
    assert.ok(error instanceof FerryError);
    assert.deepEqual(error.fault, { code: 'WORKLOAD_DEVICES_MISSING', devices: ['cpu/1'] });
    return true;
  });
});

test('the description describes every section to the byte, and sections are measured exactly', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  await destination.prepareRam(source.ram, { ignoreShared: false });
  for (const unread of [true, false]) {
    if (unread) await source.resume().then(() => source.stop('paused'));
    else source.readConsole();
    const saved = await source.saveDevices();
    const description = parseVmdesc(saved.description!);
    assert.equal(description.page_size, PAGE);
    assert.deepEqual(
      description.devices.map(({ name, instance_id, version }) => [name, instance_id, version]),
      saved.sections.map(({ idstr, instance, version }) => [idstr, instance, version]),
    );
    for (const [index, { header, body }] of headers(saved).entries()) {
      const { fields, subsections = [] } = description.devices[index]!;
      const sizeOf = (list: typeof fields) => list.reduce((sum, { size, array_len = 1 }) => sum + size * array_len, 0);
      const described = subsections.reduce(
        (sum, sub) => sum + 6 + sub.vmsd_name.length + sizeOf(sub.fields),
        sizeOf(fields),
      );
      assert.equal(described, body.length, header.idstr);
      const followed = Buffer.concat([body, Buffer.from([0x7e, 0, 0, 0, header.id])]);
      assert.equal(destination.measureDevice(header, followed), body.length, header.idstr);
      assert.equal(destination.measureDevice(header, followed.subarray(0, body.length - 1)), undefined);
    }
    const hasUnread = saved.description!.includes('workload-console/unread');
    assert.equal(hasUnread, unread, 'the subsection is sent only when it says something');
  }
  const unknown = { ...headers(await source.saveDevices())[0]!.header, idstr: 'pc.ram' };
  assert.equal(destination.measureDevice(unknown, Buffer.alloc(100)), undefined);
});

test('damaged device state is loaded as something possible or refused with a typed error, and leaves the machine usable', async (t) => {
  const source = await machineFor(t, { ram: MIB, seed: 8 });
  await source.resume();
  await operations(source, 1000);
  await source.stop('finish-migrate');
  const saved = headers(await source.saveDevices());
  const destination = await machineFor(t, { ram: MIB, incoming: true });
  const sink = await destination.prepareRam(source.ram, { ignoreShared: false });
  await fc.assert(
    fc.asyncProperty(
      fc.nat(),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      fc.boolean(),
      async (which, at, flip, cut) => {
        const { header, body } = saved[which % saved.length]!;
        const damaged = Buffer.from(cut ? body.subarray(0, at % body.length) : body);
        if (!cut) damaged[at % body.length]! ^= flip;
        try {
          await destination.loadDevice(header, damaged);
          // A body without its subsection is a whole one; only two devices have any.
          const hasSubsection = header.idstr === 'timer' || header.idstr === 'workload-console';
          assert.ok(!cut || hasSubsection, `${header.idstr} of ${damaged.length} bytes was taken for whole`);
        } catch (error) {
          if (!(error instanceof FerryError)) throw error;
        }
      },
    ),
    { seed: 4, numRuns: 500 },
  );
  sendRam(source, sink);
  await loadDevices(destination, await source.saveDevices());
  await destination.commit();
  await destination.start();
  await destination.stop('paused');
  await assertVerified(destination);
});

/** Where byte `at` of all RAM lies. */
function locate(machine: WorkloadMachine, at: number) {
  for (const block of machine.ram) {
    if (at < block.usedLength) return { block, page: Math.floor(at / PAGE), offset: at % PAGE };
    at -= block.usedLength;
  }
  throw new RangeError('beyond RAM');
}

test('one wrong byte anywhere is found and named', async (t) => {
  const machine = await machineFor(t, { ram: MIB, fill: 0.5 });
  await machine.resume();
  await operations(machine, 2000);
  await machine.stop('paused');
  const total = machine.ram.reduce((sum, { usedLength }) => sum + usedLength, 0);
  await fc.assert(
    fc.asyncProperty(fc.nat(total - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const { block, page, offset } = locate(machine, at);
      const { bytes, firstPage } = machine.window(block.index, page);
      const place = (page - firstPage) * PAGE + offset;
      bytes[place]! ^= flip;
      const verdict = await machine.verify();
      bytes[place]! ^= flip;
      assert.equal(verdict.pagesBad, 1);
      const [bad] = verdict.bad;
      assert.deepEqual([bad?.block, bad?.page, bad?.offset], [block.idstr, page, offset - (offset % 4)]);
      assert.equal(bad!.found, (bad!.expected ^ (flip << (8 * (offset % 4)))) >>> 0);
    }),
    { seed: 6, numRuns: 8 },
  );
  await assertVerified(machine);
});

test('wrong registers are found', async (t) => {
  for (const change of [
    (body: Buffer) => body.writeUInt8(body[7]! ^ 1, 7),
    (body: Buffer) => body.writeUInt8(body[11]! ^ 1, 11),
  ]) {
    const source = await machineFor(t, { ram: MIB });
    await source.resume();
    await operations(source, 1000);
    await source.stop('paused');
    const destination = await machineFor(t, { ram: MIB, incoming: true });
    sendRam(source, await destination.prepareRam(source.ram, { ignoreShared: false }));
    for (const { header, body } of headers(await source.saveDevices())) {
      if (header.idstr === 'cpu' && header.instance === 1) change(body);
      await destination.loadDevice(header, body);
    }
    await destination.commit();
    await destination.start();
    assert.notEqual(destination.fingerprint(), source.fingerprint());
    const { registersBad } = await destination.verify();
    assert.deepEqual(
      registersBad.map(({ vcpu }) => vcpu),
      [1],
    );
  }
});

test('what a state does not allow is refused by name', async (t) => {
  const machine = await machineFor(t, { ram: MIB });
  const waiting = await machineFor(t, { ram: MIB, incoming: true });
  await machine.resume();
  await assert.rejects(machine.verify(), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(machine.saveDevices(), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(machine.awaitIncoming(), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(machine.prepareRam(machine.ram, { ignoreShared: false }), refused('WORKLOAD_RUN_STATE'));
  assert.throws(() => machine.setRunState('paused'), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(waiting.resume(), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(waiting.start(), refused('WORKLOAD_RUN_STATE'));
  await assert.rejects(waiting.saveDevices(), refused('WORKLOAD_RUN_STATE'));
  await waiting.prepareRam(waiting.ram, { ignoreShared: false });
  await assert.rejects(waiting.resume(), refused('WORKLOAD_RUN_STATE'));
});

test('whoever stops the machine besides, a migration that completes keeps its state and what it interrupted', async (t) => {
  const source = await machineFor(t, { ram: MIB });
  await source.resume();
  await Promise.all([source.stop('finish-migrate'), source.stop('paused')]);
  assert.equal(source.runState, 'finish-migrate');
  const runState = async () =>
    headers(await source.saveDevices())
      .at(-1)!
      .body.toString('latin1', 4)
      .split('\0')[0];
  assert.equal(await runState(), 'running');
  source.setRunState('paused');
  assert.equal(await runState(), 'paused');
});
