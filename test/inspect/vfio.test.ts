/** A stream with VFIO devices: every byte accounted for, each device with all of its sections, and damage inside one named by it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import type { Address } from '../../src/transport/index.ts';
import { assertCompleted } from '../support/completed.ts';
import { cutProxy } from '../support/cut-proxy.ts';
import { testSettings } from '../support/move.ts';
import { moveOver } from '../support/move-over.ts';
import { busyVfs, vfPair } from '../support/vf-machines.ts';
import { accounted, inspectBytes } from './files.ts';

const MIB = 1024 * 1024;

/** The main stream of a machine with two VFs, the second without PRE_COPY. */
async function streamWithVfs(t: Parameters<typeof vfPair>[0], multifd: boolean): Promise<Buffer> {
  const slow = { 'state-rate': 1e6, 'dma-rate': 1e6, 'working-set': MIB / 4 };
  const vfs = [...busyVfs(1, slow), ...busyVfs(1, { ...slow, precopy: false, seed: 5, 'state-size': MIB })];
  const { source, destination } = await vfPair(t, { vfs, workload: { ram: 4 * MIB, dirtyRate: 1e6 } });
  const settings = testSettings((one) => {
    one.setCapabilities([{ capability: 'multifd', state: multifd }]);
    // The guest is stopped when so much is left, 3 MB: all of the second device, and some of the first, which has 4 MiB.
    one.setParameters({ 'downtime-limit': 2_000, 'avail-switchover-bandwidth': 1_500_000 });
  });
  const parts: Buffer[] = [];
  const { ended } = await moveOver({
    source: source.machine,
    destination: destination.machine,
    settings,
    via: async (listening) => {
      const proxy = await cutProxy(listening as Address & { kind: 'tcp' });
      t.after(() => proxy.close());
      proxy.onBytes = (direction, bytes, connection) => {
        if (direction === 'toTarget' && connection === 0) parts.push(Buffer.from(bytes));
      };
      return proxy.address;
    },
  });
  const { destination: arrived } = await ended;
  assertCompleted(arrived);
  return Buffer.concat(parts);
}

for (const multifd of [false, true]) {
  test(`a stream with two VFs, ${multifd ? 'their state beside it' : 'their state in it'}`, async (t) => {
    const bytes = await streamWithVfs(t, multifd);
    const { report } = await inspectBytes(bytes);
    assert.equal(report.damage, undefined);
    assert.deepEqual(report.unaccounted, []);
    assert.equal(accounted(report), bytes.length);
    const sections = (slot: string) => report.sections.filter(({ idstr }) => idstr === `0000:00:${slot}.0/vfio`);
    const [first, second] = [sections('04'), sections('05')];
    assert.deepEqual(
      first.map(({ kind }) => kind),
      ['start', 'part', 'end', 'full'],
    );
    assert.deepEqual(
      second.map(({ kind }) => kind),
      ['start', 'end', 'full'],
    );
    const [, part] = first;
    assert.ok(part!.count >= 2 && part!.bytes > 2 * MIB, 'what was read while it ran');
    const [, end, full] = second;
    // A MiB in the stream, or no more than the tag that ends it.
    assert.equal(end!.bytes > MIB, !multifd);
    assert.equal(full!.bodyBytes! > 8, !multifd, 'the configuration goes with the state');
    for (const { version, instance } of [...first, ...second]) assert.deepEqual([version, instance], [1, 0]);
    for (const one of [first, second]) assert.equal(one.at(-1)!.described, 'exactly');
    const body = [...first, ...second].reduce((sum, { bytes: all }) => sum + all, 0);
    const { iterables = 0, devices = 0 } = report.bytes;
    assert.ok(iterables > 2 * MIB && iterables + devices < body + MIB, 'state of devices counts as such');
  });
}

test('damage inside the state of a device is found where it is', async (t) => {
  const bytes = await streamWithVfs(t, false);
  const { report } = await inspectBytes(bytes);
  const end = report.sections.find(({ idstr, kind }) => idstr === '0000:00:05.0/vfio' && kind === 'end')!;
  const cut = end.offset + Math.floor(end.bytes / 2);
  const broken = (await inspectBytes(bytes.subarray(0, cut))).report;
  assert.deepEqual([broken.damage?.code, broken.damage?.offset], ['WIRE_TRUNCATED', cut]);
  assert.equal(accounted(broken), cut);
  const wrong = Buffer.from(bytes);
  wrong.writeUInt32BE(0xdeadbeef, end.bodyOffset!);
  const spoiled = (await inspectBytes(wrong)).report;
  assert.equal(spoiled.damage?.offset, end.bodyOffset);
  assert.match(spoiled.damage!.message, /0000:00:05\.0\/vfio/);
});
