/* Runs in every process. See sentence.h. */
#include "common/sentence.h"

#include <stdarg.h>
#include <stdio.h>

struct nx_sentence nx_sentence_in(char *text, size_t cap)
{
    text[0] = '\0';
    return (struct nx_sentence){.text = text, .cap = cap};
}

void nx_say(struct nx_sentence *sentence, const char *format, ...)
{
    size_t room = sentence->cap - sentence->used;
    va_list args;
    int length;

    va_start(args, format);
    length = vsnprintf(sentence->text + sentence->used, room, format, args);
    va_end(args);
    if (length > 0) {
        sentence->used += (size_t)length < room ? (size_t)length : room - 1;
    }
}
