/* Runs in walsenders and in the walreceiver; see byte_marks.h. */
#include "common/byte_marks.h"

static struct nx_byte_mark *mark_at(struct nx_byte_marks *marks, size_t i)
{
    return &marks->marks[(marks->first + i) % NX_BYTE_MARKS];
}

void nx_byte_marks_init(struct nx_byte_marks *marks, uint64_t offset)
{
    marks->base = (struct nx_byte_mark){.offset = offset, .total = 0};
    marks->first = 0;
    marks->count = 0;
}

uint64_t nx_byte_marks_total(const struct nx_byte_marks *marks)
{
    if (marks->count == 0) {
        return marks->base.total;
    }
    return marks->marks[(marks->first + marks->count - 1) % NX_BYTE_MARKS].total;
}

void nx_byte_marks_add(struct nx_byte_marks *marks, uint64_t offset, uint64_t bytes)
{
    struct nx_byte_mark next = {.offset = offset, .total = nx_byte_marks_total(marks) + bytes};

    if (marks->count < NX_BYTE_MARKS) {
        marks->count++;
    }
    *mark_at(marks, marks->count - 1) = next;
}

uint64_t nx_byte_marks_up_to(struct nx_byte_marks *marks, uint64_t offset)
{
    while (marks->count > 0 && mark_at(marks, 0)->offset <= offset) {
        marks->base = *mark_at(marks, 0);
        marks->first = (marks->first + 1) % NX_BYTE_MARKS;
        marks->count--;
    }
    if (marks->count > 0 && offset > marks->base.offset) {
        const struct nx_byte_mark *next = mark_at(marks, 0);
        uint64_t entries = next->offset - marks->base.offset;
        uint64_t bytes = next->total - marks->base.total;

        marks->base.total += bytes / entries * (offset - marks->base.offset);
        marks->base.offset = offset;
    }
    return marks->base.total;
}
