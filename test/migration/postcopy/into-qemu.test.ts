/** A saved guest runs at once in a real QEMU while its memory is still in the file: both dialects of preempt, and connections that break. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { explain } from '../../../src/base/index.ts';
import { CheckpointReader } from '../../../src/machine/index.ts';
import { type MigrationStatus, OutgoingMigration, routeTo } from '../../../src/migration/index.ts';
import { type QemuProcess, REQUIRED_PEERS } from '../../../src/qemu/index.ts';
import { type CutProxy, cutProxy } from '../../support/cut-proxy.ts';
import { testSettings } from '../../support/move.ts';
import { peerOrSkip } from '../../support/peers.ts';
import { capabilities, listening, QemuLab } from '../../support/qemu-lab.ts';

const MIB = 1024 * 1024;

class Restore {
  readonly migration: OutgoingMigration;
  readonly states: MigrationStatus[] = [];
  readonly #waiters = new Map<MigrationStatus, () => void>();

  constructor(
    machine: CheckpointReader,
    proxy: CutProxy,
    options: { readonly preempt: boolean; readonly bandwidth: number },
  ) {
    const { connect, dial } = routeTo(proxy.address);
    this.migration = new OutgoingMigration({
      machine,
      settings: testSettings((settings) => {
        settings.setCapabilities([
          { capability: 'postcopy-ram', state: true },
          { capability: 'postcopy-preempt', state: options.preempt },
        ]);
        settings.setParameters({ 'max-postcopy-bandwidth': options.bandwidth });
      }),
      connect,
      dial,
      returnPath: () => true,
      observer: {
        status: (status) => {
          this.states.push(status);
          this.#waiters.get(status)?.();
        },
      },
    });
    this.migration.startPostcopy();
  }

  /** Resolves when it comes into that state. */
  next(state: MigrationStatus): Promise<void> {
    return new Promise((resolve) => this.#waiters.set(state, resolve));
  }

  /** Resolves when so many bytes of memory have gone since `from`. */
  async sent(byteCount: number, from: number): Promise<void> {
    while ((this.migration.info().ram?.transferred ?? 0) < from + byteCount) {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

async function completed(
  restored: Restore,
  run: ReturnType<OutgoingMigration['run']>,
  qemu: QemuProcess,
): Promise<void> {
  const result = await run;
  assert.equal(result.status, 'completed', result.status === 'completed' ? '' : explain(result.error));
  assert.equal(restored.states.at(-1), 'completed');
  await qemu.qmp.waitForMigration(['completed'], { timeoutMs: 20_000 });
}

for (const version of REQUIRED_PEERS) {
  const { peer, skip } = await peerOrSkip(version);
  for (const machineVersion of new Set(['7.2', version])) {
    const machine = `pc-i440fx-${machineVersion}`;
    test(`QEMU ${version}, ${machine}: preempt, and three connections that break on the way`, { skip }, async (t) => {
      assert(peer !== undefined);
      const lab = await QemuLab.open(t);
      const a = await lab.start(peer, { machine });
      const file = await lab.save(a, 'vm.ckpt');
      const b = await lab.start(peer, { machine, incoming: true });
      await capabilities(b, 'postcopy-ram', 'postcopy-preempt', 'events');
      let proxy = await cutProxy(await listening(b));
      t.after(() => proxy.close());
      const reader = await CheckpointReader.open(file);
      t.after(() => reader.close());
      const restored = new Restore(reader, proxy, { preempt: true, bandwidth: 30 * MIB });
      const active = restored.next('postcopy-active');
      const run = restored.migration.run();
      await active;
      for (const how of ['reset', 'end', 'reset'] as const) {
        await restored.sent(4 * MIB, restored.migration.info().ram?.transferred ?? 0);
        const paused = restored.next('postcopy-paused');
        const theirs = b.qmp.waitForMigration(['postcopy-paused'], { timeoutMs: 20_000 });
        proxy.sever(how);
        await Promise.all([paused, theirs]);
        await proxy.close();
        proxy = await cutProxy(await listening(b, 'migrate-recover'));
        const again = restored.next('postcopy-active');
        restored.migration.postcopy.resume(routeTo(proxy.address));
        await again;
      }
      await completed(restored, run, b);
      const { ram } = restored.migration.info();
      assert.ok(ram!['postcopy-requests'] > 0, 'pages were asked for');
      await lab.guest.check([a, b]);
    });
  }

  test(`QEMU ${version}: without preempt, as fast as it goes`, { skip }, async (t) => {
    assert(peer !== undefined);
    const machine = `pc-i440fx-${version}`;
    const lab = await QemuLab.open(t, { pageCount: 4096 });
    const a = await lab.start(peer, { machine });
    const file = await lab.save(a, 'vm.ckpt');
    const b = await lab.start(peer, { machine, incoming: true });
    await capabilities(b, 'postcopy-ram');
    const proxy = await cutProxy(await listening(b));
    t.after(() => proxy.close());
    const reader = await CheckpointReader.open(file);
    t.after(() => reader.close());
    const restored = new Restore(reader, proxy, { preempt: false, bandwidth: 0 });
    await completed(restored, restored.migration.run(), b);
    await lab.guest.check([a, b]);
  });
}
