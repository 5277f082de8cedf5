import type { DeviceSection } from '../../machine/index.ts';

/**
 * A machine's self-description with sections of old style behind the others: their bodies are data without fields, as QEMU describes
 * them (migration/savevm.c, vmstate_save_old_style).
 */
export function addOldStyleSections(description: string, sections: readonly DeviceSection[]): string {
  const parsed = JSON.parse(description) as { devices: unknown[] };
  for (const { idstr, instance, body } of sections) {
    const size = body.length;
    parsed.devices.push({ name: idstr, instance_id: instance, size, fields: [{ name: 'data', size, type: 'buffer' }] });
  }
  return JSON.stringify(parsed);
}
