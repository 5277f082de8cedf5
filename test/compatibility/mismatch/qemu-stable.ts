/** QEMUs at their work, for cells in which one sends: booting takes longer than most cells, so what is still as it was is used again. */
import assert from 'node:assert/strict';
import { findPeer, type QemuProcess } from '../../../src/qemu/index.ts';
import type { QemuLab } from '../../support/qemu-lab.ts';
import { credentials } from './ends.ts';
import type { Hardware, Having, Side } from './model.ts';
import { putBack } from './qemu-end.ts';

interface Kept {
  readonly qemu: QemuProcess;
  /** When it was new. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

export class QemuStable {
  readonly #lab: QemuLab;
  readonly #tls: string;
  readonly #idle = new Map<string, Kept[]>();
  readonly #lent = new Map<QemuProcess, { readonly key: string; readonly kept: Kept }>();

  constructor(lab: QemuLab, tls: string) {
    this.#lab = lab;
    this.#tls = tls;
  }

  /** One whose guest is at its work (source), or one that waits. */
  async take(version: string, side: Side, { args = [], compat = [] }: Hardware): Promise<QemuProcess> {
    const key = [version, ...args, ...compat].join(' ');
    const kept =
      (side === 'source' ? this.#idle.get(key)?.pop() : undefined) ?? (await this.#start(version, side, args, compat));
    this.#lent.set(kept.qemu, { key, kept });
    return kept.qemu;
  }

  /** A source that a migration has left as it was, but for settings and that it may stand. */
  async giveBack(qemu: QemuProcess, having: Having): Promise<void> {
    const { key, kept } = this.#lent.get(qemu)!;
    try {
      await putBack(qemu, having, kept.parameters);
      this.#lent.delete(qemu);
      this.#idle.set(key, [...(this.#idle.get(key) ?? []), kept]);
    } catch {
      await this.end(qemu);
    }
  }

  async end(qemu: QemuProcess): Promise<void> {
    this.#lent.delete(qemu);
    await qemu.stop();
  }

  async #start(version: string, side: Side, args: readonly string[], compat: readonly string[]): Promise<Kept> {
    const peer = await findPeer(version);
    assert(peer !== undefined, `no QEMU ${version} here`);
    const globals = compat.flatMap((text) => ['-global', `migration.${text}`]);
    const machine = `pc-i440fx-${version}`;
    const qemu = await this.#lab.start(peer, {
      machine,
      incoming: side === 'destination',
      args: [...args, ...globals],
    });
    await qemu.qmp.execute('object-add', credentials(this.#tls, side));
    return { qemu, parameters: await qemu.qmp.execute('query-migrate-parameters') };
  }
}
